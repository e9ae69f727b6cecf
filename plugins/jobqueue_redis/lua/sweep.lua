-- Look at some queues of the registry, and mend what somebody else has damaged: a group that is gone, work that no worker would be told of.
-- use: places, ring, unlock
-- ARGV: prefix, cursor
-- Answer: next cursor, notes (kind, code, text).
local QUEUES = 20
local page = redis.call('SSCAN', K_QUEUES, ARGV[2], 'COUNT', QUEUES)
local notes = {}

local function first_due(queue)
  local earliest
  for _, zset in ipairs({K_DELAYED .. queue, K_RETRY .. queue}) do
    local first = redis.call('ZRANGE', zset, 0, 0, 'WITHSCORES')
    if first[2] and (not earliest or tonumber(first[2]) < tonumber(earliest)) then earliest = first[2] end
  end
  return earliest
end

unlock_memory()
for _, queue in ipairs(page[2]) do
  for rank = 0, 3 do
    for _, letter in ipairs(STREAMS) do
      local code = letter .. rank .. queue
      local stream = stream_of(code)
      if redis.call('EXISTS', stream) == 1 then
        local groups = redis.pcall('XINFO', 'GROUPS', stream)
        local pending = 0
        if groups.err then
          notes[#notes + 1] = {'refused', code, groups.err}
        else
          local found = false
          for _, group in ipairs(groups) do
            if group[2] == GROUP then
              found = true
              pending = group[6]
            end
          end
          local length = redis.call('XLEN', stream)
          if not found and length > 0 then
            redis.call('XGROUP', 'CREATE', stream, GROUP, '0')
            if redis.call('SADD', K_GROUPED, code) == 0 then notes[#notes + 1] = {'group', code, ''} end
          end
          if length > pending then ring_for(code) end
          if pending > 0 then redis.call('SADD', K_HELD, queue) end
        end
      end
    end
  end
  if not redis.call('ZSCORE', K_DUE, queue) then
    local due = first_due(queue)
    if due then redis.call('ZADD', K_DUE, due, queue) end
  end
end
return {page[1], notes}
