-- The end of a lease: its outcome, or that it was given back, or lost. Carried out once, by whoever holds the lease (DESIGN R9).
-- use: put, finish, count, send
-- ARGV: prefix, ttl (ms), most rows pending, executions (msgpack array), which item each is of ('': the first of the first, and so on), event, whether
-- the caller knows that someone listens ('-': it has nothing to tell), number of dead letters, of each the item and the letter;
-- then for each stream its code, how many items, for how long (ms) the holder must have been silent ('': no matter), and of each item
--   entry id, what (c d x: completed, dead, cancelled; t s: retrying, scheduled; r: ready again), job id, extra (c d x: for `finish`; t s: delay in µs),
--   rest of the value.
-- Answer: whether someone listens, then for each item 1 (done, now or before), 0 (the lease is lost) or 2 (someone has asked for a cancel: nothing is
-- done, the caller is to say what becomes of a cancelled job). Or only 'listening': nothing is done, the caller is to send an event along.
local ttl, most_pending, executions, rows, event, heard = ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[5], ARGV[6], ARGV[7]
local listening = redis.call('EXISTS', K_LISTENED)
if listening == 1 and heard == '0' then return 'listening' end

local stopping = redis.call('EXISTS', K_CANCELS) == 1
local reporting = redis.call('EXISTS', K_PROGRESS) == 1
local KINDS = {c = 'completed', d = 'dead', x = 'cancelled', t = 'failed'}
local answers, written, counts = {}, {}, {}
local number = 0

local function told_before(id, rest)
  local record = redis.call('GET', K_JOB .. id)
  if not record then return false end
  if string.sub(record, 2, 2) == 'w' then
    local code, entry = string.match(record, '^..([urs][0-3]%S+) (%d+%-%d+)$')
    local found = code and redis.call('XRANGE', stream_of(code), entry, entry)
    record = found and found[1] and found[1][2][2] or ''
  end
  return string.sub(record, -#rest) == rest
end

local function write(code, at, index)
  local entry, what, id, extra, rest = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4]
  local queue = string.sub(code, 3)
  if what == 'r' then
    put_in_stream(id, 'r' .. string.sub(code, 2), T .. rest)
  elseif what == 't' then
    put_in_zset(id, 't' .. string.sub(code, 2), T .. rest, now + extra)
  elseif what == 's' then
    put_in_zset(id, 'd' .. string.sub(code, 2), T .. rest, now + extra)
  else
    finish(id, queue, what, rest, extra, ttl)
  end
  local kind = KINDS[what]
  if kind then
    local of_queue = counts[queue]
    if not of_queue then
      of_queue = {}
      counts[queue] = of_queue
    end
    of_queue[kind] = (of_queue[kind] or 0) + 1
  end
  if stopping then redis.call('SREM', K_CANCELS, code .. ' ' .. entry) end
  if reporting then redis.call('HDEL', K_PROGRESS, code .. ' ' .. entry) end
  answers[index] = 1
  written[index] = true
end

local letters = tonumber(ARGV[8])
local i = 9 + 2 * letters
while i <= #ARGV do
  local code, count, silent = ARGV[i], tonumber(ARGV[i + 1]), ARGV[i + 2]
  local stream = stream_of(code)
  local ids, places, indexes = {}, {}, {}
  for n = 0, count - 1 do
    local at = i + 3 + 5 * n
    local entry, what = ARGV[at], ARGV[at + 1]
    number = number + 1
    if stopping and what ~= 'c' and what ~= 'x' and redis.call('SISMEMBER', K_CANCELS, code .. ' ' .. entry) == 1 then
      answers[number] = 2
    elseif silent ~= '' and #redis.call('XPENDING', stream, GROUP, 'IDLE', silent, entry, entry, 1) == 0 then
      answers[number] = 0
    else
      ids[#ids + 1] = entry
      places[#ids] = at
      indexes[#ids] = number
    end
  end
  if #ids > 0 then
    if redis.call('XACK', stream, GROUP, unpack(ids)) == #ids then
      redis.call('XDEL', stream, unpack(ids))
      for n = 1, #ids do write(code, places[n], indexes[n]) end
    else
      for n, entry in ipairs(ids) do
        local id, rest = ARGV[places[n] + 2], ARGV[places[n] + 4]
        -- The entry is there: nobody has moved the job. It is gone and the record points to it: somebody has deleted the stream.
        if redis.call('XDEL', stream, entry) == 1 or redis.call('GET', K_JOB .. id) == '\1w' .. code .. ' ' .. entry then
          write(code, places[n], indexes[n])
        elseif told_before(id, rest) then
          answers[indexes[n]] = 1
        else
          answers[indexes[n]] = 0
        end
      end
    end
  end
  i = i + 3 + 5 * count
end

for queue, kinds in pairs(counts) do
  for kind, by in pairs(kinds) do count(queue, kind, by) end
end

if executions ~= '' then
  local total, refused = 0, {}
  local function add(index)
    if not written[index] then refused[#refused + 1] = total end
    total = total + 1
  end
  if rows == '' then
    for index = 1, number do add(index) end
  else
    for index in string.gmatch(rows, '%d+') do add(tonumber(index)) end
  end
  send_history(executions, total, refused, most_pending)
end
for n = 0, letters - 1 do
  if written[tonumber(ARGV[9 + 2 * n])] then send_dead(ARGV[10 + 2 * n]) end
end
if listening == 1 and heard == '1' then
  local refused = {}
  for index = 1, number do
    if not written[index] then refused[#refused + 1] = index - 1 end
  end
  if #refused < number then send_event(event, refused) end
end
return {listening, answers}
