-- Store new jobs, in order: earlier ones hold ids and keys against later ones.
-- use: put, unique, look, count
-- ARGV: prefix, time (µs) after which it is too late ('': never), mode ('plain': no job has options, and all ids differ; else 'mixed'), then for each job
--   id, place when it is ready, options ('' or a msgpack map), rest of the value.
-- Options: due or due_in, expires or expires_in (µs: an instant, or a time from now), unique, lasts (µs), key and fingerprint (idempotency).
-- Answer: now, how many of the jobs were dealt with (the caller sends the others in another call), then for each of these that was not created its
-- number (from 1), why (id, unique, key: there is one already; conflict: the key stands for another request; late), the id of the job that is there, and
-- a look at it.
-- Nothing of a job is written before all its checks, and then first what a full server refuses. Repeated, it finds the jobs by their ids.
local KEPT = 86400000
local MOST_WORK = 1000
local MOST_SHOWN = 1048576
local JOBS = 4
local not_after, mode = ARGV[2], ARGV[3]
local late = not_after ~= '' and now > tonumber(not_after)
local answer = {NOW, 0}
local counts = {}

-- A script that fails halfway leaves what it has written: what somebody has put in the place of a stream or a sorted set is found before that.
local function check_places()
  local seen = {}
  for i = JOBS, #ARGV, 4 do
    local code = ARGV[i + 1]
    if not seen[code] then
      seen[code] = true
      for key, kind in pairs({[stream_of(code)] = 'stream', [zset_of('d' .. string.sub(code, 2))] = 'zset'}) do
        local found = redis.call('TYPE', key).ok
        if found ~= kind and found ~= 'none' then return redis.error_reply('WRONGTYPE ' .. key .. ' holds a ' .. found) end
      end
    end
  end
end

-- Jobs without options: all or none. False when the id of one is known.
local function store_plain()
  local records, n = {}, 0
  for i = JOBS, #ARGV, 4 do
    n = n + 1
    records[n] = K_JOB .. ARGV[i]
  end
  if redis.call('EXISTS', unpack(records)) > 0 then return false end
  local streams, written = {}, {}
  n = 0
  for i = JOBS, #ARGV, 4 do
    n = n + 1
    local code = ARGV[i + 1]
    local stream = streams[code]
    if not stream then
      stream = stream_of(code)
      streams[code] = stream
    end
    local entry = redis.call('XADD', stream, '*', '1', T .. ARGV[i + 3])
    written[2 * n - 1] = records[n]
    written[2 * n] = '\1w' .. code .. ' ' .. entry
    local queue = string.sub(code, 3)
    counts[queue] = (counts[queue] or 0) + 1
  end
  redis.call('MSET', unpack(written))
  for queue in pairs(counts) do ring(queue) end
  answer[2] = n
  return true
end

local shown = 0

local function tell(number, why, id)
  local seen = look(id)
  if seen then
    shown = shown + #seen[1]
    for _, part in ipairs(seen[2] or {}) do shown = shown + #part end
  end
  for _, part in ipairs({number, why, id, seen}) do answer[#answer + 1] = part end
end

local function remember(options, id)
  if options.key then redis.call('SET', K_IDEMPOTENCY .. options.key, id .. options.fingerprint, 'PX', KEPT) end
end

-- What stands in the way of a job: why, and the id of the job that is there.
local function obstacle(id, queue, options)
  if options.key then
    local made = redis.call('GET', K_IDEMPOTENCY .. options.key)
    if made then
      local holder = string.sub(made, 1, 36)
      if redis.call('EXISTS', K_JOB .. holder) == 1 then
        return string.sub(made, 37) == options.fingerprint and 'key' or 'conflict', holder
      end
    end
  end
  if redis.call('EXISTS', K_JOB .. id) == 1 then return 'id', id end
  if late then return 'late', id end
  if options.unique then
    local holder = holder_of(queue, options.unique)
    if holder then
      remember(options, holder)
      return 'unique', holder
    end
  end
  return nil
end

local function store(id, code, options, rest)
  local queue = string.sub(code, 3)
  local due = options.due or options.due_in and now + options.due_in or now
  if due > now then
    put_in_zset(id, 'd' .. string.sub(code, 2), T .. rest, due)
  else
    put_in_stream(id, code, T .. rest)
  end
  if options.unique then take_key(queue, options.unique, id, options.lasts) end
  remember(options, id)
  local expires = options.expires or options.expires_in and now + options.expires_in
  if expires then redis.call('ZADD', K_EXPIRING, string.format('%.0f', expires), id) end
  counts[queue] = (counts[queue] or 0) + 1
end

local function store_mixed()
  local work, number = 0, 0
  for i = JOBS, #ARGV, 4 do
    local id, code, options = ARGV[i], ARGV[i + 1], ARGV[i + 2]
    number = number + 1
    options = options == '' and {} or cmsgpack.unpack(options)
    work = work + 2
    for _ in pairs(options) do work = work + 1 end
    local why, holder = obstacle(id, string.sub(code, 3), options)
    if why then
      work = work + 3
      tell(number, why, holder)
    else
      store(id, code, options, ARGV[i + 3])
    end
    answer[2] = number
    if work >= MOST_WORK or shown >= MOST_SHOWN then break end
  end
end

local refused = check_places()
if refused then return refused end
if late or mode ~= 'plain' or not store_plain() then store_mixed() end
for queue, stored in pairs(counts) do
  redis.call('SADD', K_QUEUES, queue)
  count(queue, 'enqueued', stored)
end
return answer
