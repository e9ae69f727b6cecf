-- End jobs that nobody has: waiting, scheduled or retrying ones.
-- use: places, unlock, finish, count, send
-- ARGV: prefix, ttl (ms), queue that is being purged ('': none), event (of those of its `jobs` that are ended now), then for each job
--   place, entry id (in a stream) or member (of a sorted set), when it is due (µs, in a sorted set; '': no matter), id, what becomes of it (d x: dead,
--   cancelled), extra (for `finish`), rest of the value, dead letter ('': none).
-- Answer: for each 1 (done, now or by an earlier call with the same arguments), 2 (it was only said to be there, and no more is) or 0 (it is not there
-- any more: look again).
local ITEM = 8
local ttl, purged, event = ARGV[2], ARGV[3], ARGV[4]
local KINDS = {d = 'dead', x = 'cancelled'}
local answers, counts, refused = {}, {}, {}

-- Takes an entry that nobody holds. One that somebody has deleted is taken by its record, for nothing else tells of the job any more.
local function take_entry(code, entry, record)
  local pending = redis.pcall('XPENDING', stream_of(code), GROUP, entry, entry, 1)
  if not pending.err and #pending > 0 then return false end
  return redis.call('XDEL', stream_of(code), entry) == 1 or record == '\1w' .. code .. ' ' .. entry
end

local function take_member(code, member, due, record)
  local zset = zset_of(code)
  local score = redis.call('ZSCORE', zset, member)
  if not score then return record and string.sub(record, 1, #code + 3) == '\1d' .. code .. ' ' end
  if due ~= '' and tonumber(due) ~= tonumber(score) then return false end
  return redis.call('ZREM', zset, member) == 1
end

-- What a sorted set holds of a job that, by its record, is elsewhere or has ended, is not the job.
local function is_elsewhere(code, record)
  if not record or string.sub(record, 1, 1) ~= '\1' then return false end
  local kind = string.sub(record, 2, 2)
  if kind == 'd' then
    local other = string.match(record, '^..([dt][0-3]%S+) ')
    return other ~= nil and zset_of(other) ~= zset_of(code)
  end
  return string.match(record, '^.f[cdx]%d+:%S* ') ~= nil or string.match(record, '^.w[urs][0-3]%S+ %S+$') ~= nil
end

local function withdraw(i)
  local code, at, due, id = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local what, extra, rest, letter = ARGV[i + 4], ARGV[i + 5], ARGV[i + 6], ARGV[i + 7]
  local queue = string.sub(code, 3)
  local in_zset = string.find('dt', string.sub(code, 1, 1), 1, true) ~= nil
  local record = redis.call('GET', K_JOB .. id)
  local taken
  if in_zset then taken = take_member(code, at, due, record) else taken = take_entry(code, at, record) end
  if not taken then
    refused[#refused + 1] = #answers
    return record and string.sub(record, 1, 3) == '\1f' .. what and string.sub(record, -#rest) == rest and 1 or 0
  end
  if in_zset and is_elsewhere(code, record) then
    refused[#refused + 1] = #answers
    return 2
  end
  redis.call('ZREM', K_EXPIRING, id)
  finish(id, queue, what, rest, extra, ttl)
  if letter ~= '' then send_dead(letter) end
  counts[queue] = counts[queue] or {d = 0, x = 0}
  counts[queue][what] = counts[queue][what] + 1
  return 1
end

unlock_memory()
for i = 5, #ARGV, ITEM do answers[#answers + 1] = withdraw(i) end
for queue, of_queue in pairs(counts) do
  for what, by in pairs(of_queue) do
    if by > 0 then count(queue, KINDS[what], by) end
  end
end
if purged ~= '' then
  local cancelled = counts[purged] and counts[purged].x or 0
  if cancelled > 0 then send_event(cmsgpack.pack({'purged', {queue = purged, count = cancelled}}), {}) end
elseif next(counts) then
  send_event(event, refused)
end
return answers
