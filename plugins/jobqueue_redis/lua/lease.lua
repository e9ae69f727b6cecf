-- Hand out up to `limit` entries, in strict order, and note when. The only script that takes entries (DESIGN R8).
-- use: places, unlock
-- ARGV: prefix, consumer, limit, most jobs that have crashed (suspects), others (1: all other queues, after those named), queue...
-- Answer: now, whether someone listens, notes (kind, code, text), bells, then for each stream its code, how many entries, and of each its id, field
-- and value; of an entry that is not one of ours the field is '?' and the value all its fields as msgpack.
-- When nothing is handed out, `bells` are the last ids of wake:<queue> for each queue named, or of wake:* alone.
local MOST_OTHERS = 500
local MOST_BELLS = 16
local consumer, left, suspects, others = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5] == '1'
local named = {}
for i = 6, #ARGV do named[#named + 1] = ARGV[i] end

-- The queues to look into, in order; what there may be in each.
local queues, has_work, is_suspected = {}, {}, {}
local function look_up(set, found)
  if #named > 0 then
    for i, is_member in ipairs(redis.call('SMISMEMBER', set, unpack(named))) do
      if is_member == 1 then found[named[i]] = true end
    end
  end
  if others then
    for _, queue in ipairs(redis.call('SRANDMEMBER', set, MOST_OTHERS)) do found[queue] = true end
  end
end
look_up(K_WORK, has_work)
if suspects > 0 then look_up(K_SUSPECTED, is_suspected) end
local is_named = {}
for _, queue in ipairs(named) do
  is_named[queue] = true
  if has_work[queue] or is_suspected[queue] then queues[#queues + 1] = queue end
end
if others then
  local more = {}
  for queue in pairs(has_work) do
    if not is_named[queue] then more[#more + 1] = queue end
  end
  for queue in pairs(is_suspected) do
    if not is_named[queue] and not has_work[queue] then more[#more + 1] = queue end
  end
  table.sort(more)
  for _, queue in ipairs(more) do queues[#queues + 1] = queue end
end

local notes, leased = {}, {}

local function read(stream, most)
  return redis.pcall('XREADGROUP', 'GROUP', GROUP, consumer, 'COUNT', most, 'STREAMS', stream, '>')
end

-- Takes what there is, up to `most`; says how many.
local function take(code, most)
  local stream = stream_of(code)
  if redis.call('EXISTS', stream) == 0 then return 0 end
  local reply = read(stream, most)
  if reply and reply.err and string.find(reply.err, 'NOGROUP', 1, true) then
    unlock_memory()
    redis.call('XGROUP', 'CREATE', stream, GROUP, '0')
    if redis.call('SADD', K_GROUPED, code) == 0 then notes[#notes + 1] = {'group', code, ''} end
    reply = read(stream, most)
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
      if is_suspected[queue] and left > 0 and suspects > 0 then suspects = suspects - take('u' .. rank .. queue, math.min(left, suspects)) end
      if has_work[queue] then
        if left > 0 then take('r' .. rank .. queue, left) end
        if left > 0 then take('s' .. rank .. queue, left) end
      end
    end
    if left < before then redis.call('SADD', K_HELD, queue) end
    -- Some are left unread only when a limit was reached: else every stream of the queue is empty now.
    if left > 0 then
      if has_work[queue] then redis.call('SREM', K_WORK, queue) end
      if is_suspected[queue] and suspects > 0 then redis.call('SREM', K_SUSPECTED, queue) end
    end
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
