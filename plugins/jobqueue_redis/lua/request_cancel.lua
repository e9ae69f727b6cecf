-- Ask a running job to stop.
-- use: places, unlock, send
-- ARGV: prefix, place, entry id, event
-- Answer: 1; 0 when nobody holds the entry. Repeating it changes nothing but the event log.
local code, entry, event = ARGV[2], ARGV[3], ARGV[4]
local pending = redis.pcall('XPENDING', stream_of(code), GROUP, entry, entry, 1)
if pending.err or #pending == 0 then return 0 end
unlock_memory()
redis.call('SADD', K_CANCELS, code .. ' ' .. entry)
send_event(event, {})
return 1
