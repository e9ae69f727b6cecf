-- Hand out up to `limit` entries, in strict order, and note when. The only script that takes entries (DESIGN R8).
-- use: places, unlock
-- ARGV: prefix, consumer, limit, others (1: all other queues, after those named), queue...
-- Answer: now, whether someone listens, notes (kind, code, text), bells, then for each stream its code, how many entries, and of each its id, field
-- and value; of an entry that is not one of ours the field is '?' and the value all its fields as msgpack.
-- When nothing is handed out, `bells` are the last ids of wake:<queue> for each queue named, or of wake:* alone.
local MOST_OTHERS = 500
local MOST_BELLS = 16
local consumer, left, others = ARGV[2], tonumber(ARGV[3]), ARGV[4] == '1'
local named = {}
for i = 5, #ARGV do named[#named + 1] = ARGV[i] end

local queues = {}
if #named > 0 then
  local has_work = redis.call('SMISMEMBER', K_WORK, unpack(named))
  for i, queue in ipairs(named) do
    if has_work[i] == 1 then queues[#queues + 1] = queue end
  end
end
if others then
  local is_named = {}
  for _, queue in ipairs(named) do is_named[queue] = true end
  local more = {}
  for _, queue in ipairs(redis.call('SRANDMEMBER', K_WORK, MOST_OTHERS)) do
    if not is_named[queue] then more[#more + 1] = queue end
  end
  table.sort(more)
  for _, queue in ipairs(more) do queues[#queues + 1] = queue end
end

local notes, leased = {}, {}

local function read(stream)
  return redis.pcall('XREADGROUP', 'GROUP', GROUP, consumer, 'COUNT', left, 'STREAMS', stream, '>')
end

-- Takes what there is, up to `left`; says how many.
local function take(code)
  local stream = stream_of(code)
  if redis.call('EXISTS', stream) == 0 then return 0 end
  local reply = read(stream)
  if reply and reply.err and string.find(reply.err, 'NOGROUP', 1, true) then
    unlock_memory()
    redis.call('XGROUP', 'CREATE', stream, GROUP, '0')
    if redis.call('SADD', K_GROUPED, code) == 0 then notes[#notes + 1] = {'group', code, ''} end
    reply = read(stream)
  end
  if not reply then return 0 end
  if reply.err then
    notes[#notes + 1] = {'refused', code, reply.err}
    return 0
  end
  local entries = reply[1][2]
  local claim = {'XCLAIM', stream, GROUP, consumer, '0'}
  leased[#leased + 1] = code
  leased[#leased + 1] = #entries
  for _, entry in ipairs(entries) do
    local id, fields = entry[1], entry[2]
    claim[#claim + 1] = id
    leased[#leased + 1] = id
    if #fields == 2 then
      leased[#leased + 1] = fields[1]
      leased[#leased + 1] = fields[2]
    else
      leased[#leased + 1] = '?'
      leased[#leased + 1] = cmsgpack.pack(fields)
    end
  end
  -- The delivery counter keeps when the lease began; renewals leave it as it is.
  claim[#claim + 1] = 'RETRYCOUNT'
  claim[#claim + 1] = NOW
  claim[#claim + 1] = 'JUSTID'
  redis.call(unpack(claim))
  left = left - #entries
  return #entries
end

for _, queue in ipairs(queues) do
  if left <= 0 then break end
  if redis.call('EXISTS', K_PAUSED .. queue) == 0 then
    local before = left
    for rank = 0, 3 do
      for _, letter in ipairs({'r', 's'}) do
        if left > 0 then take(letter .. rank .. queue) end
      end
    end
    if left < before then redis.call('SADD', K_HELD, queue) end
    -- Some are left unread only when the limit was reached: else every stream of the queue is empty now.
    if left > 0 then redis.call('SREM', K_WORK, queue) end
  end
end

local bells = {}
if #leased == 0 then
  if others or #named > MOST_BELLS then named = {'*'} end
  for i, queue in ipairs(named) do
    local last = redis.call('XREVRANGE', K_WAKE .. queue, '+', '-', 'COUNT', 1)
    bells[i] = last[1] and last[1][1] or '0-0'
  end
end
return {NOW, redis.call('EXISTS', K_LISTENED), notes, bells, leased}
