-- Say that `queue` has work. The bell wakes idle workers; it is rung only when there was none, for a worker goes to sleep only after it has found
-- every stream of the queue empty and has said so.
local function ring_bell(queue)
  redis.call('XADD', K_WAKE .. queue, 'MAXLEN', '1', '*', 'at', NOW)
  redis.call('XADD', K_WAKE .. '*', 'MAXLEN', '1', '*', 'at', NOW)
end

local function ring(queue)
  if redis.call('SADD', K_WORK, queue) == 1 then ring_bell(queue) end
end
