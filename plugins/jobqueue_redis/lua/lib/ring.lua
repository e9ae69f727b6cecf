-- Say that `queue` has work. The bell wakes idle workers; it is rung only when there was none, for a worker goes to sleep only after it has found
-- every stream of the queue empty and has said so.
local function ring_bell(queue)
  redis.call('XADD', K_WAKE .. queue, 'MAXLEN', '1', '*', 'at', NOW)
  redis.call('XADD', K_WAKE .. '*', 'MAXLEN', '1', '*', 'at', NOW)
end

local function ring(queue)
  if redis.call('SADD', K_WORK, queue) == 1 then ring_bell(queue) end
end

-- The same for jobs that have crashed, which not every worker may take: a set of their own, so that they keep no bell for others from ringing.
local function ring_suspects(queue)
  if redis.call('SADD', K_SUSPECTED, queue) == 1 then ring_bell(queue) end
end

local function ring_for(code)
  if string.sub(code, 1, 1) == 'u' then ring_suspects(string.sub(code, 3)) else ring(string.sub(code, 3)) end
end
