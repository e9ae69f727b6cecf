-- Pause or resume a queue, which need not have had a job.
-- use: ring, unlock, send
-- ARGV: prefix, queue, paused (1 or 0), event
-- Repeating it changes nothing but the event log.
local queue, paused, event = ARGV[2], ARGV[3], ARGV[4]
unlock_memory()
redis.call('SADD', K_QUEUES, queue)
if paused == '1' then
  redis.call('SET', K_PAUSED .. queue, NOW)
else
  redis.call('DEL', K_PAUSED .. queue)
  -- While it was paused nobody looked whether there is work, and whoever waits has seen it paused: the bell rings whatever is known.
  redis.call('SADD', K_WORK, queue)
  redis.call('SADD', K_SUSPECTED, queue)
  ring_bell(queue)
end
send_event(event, {})
return 1
