-- Put a delayed job back into the sorted set that its record names. Repeating it changes nothing.
-- use: places, unlock
-- ARGV: prefix, job id, place, when it is due (µs)
-- Answer: 1 when it was missing.
local id, code, due = ARGV[2], ARGV[3], ARGV[4]
local record = redis.call('GET', K_JOB .. id)
if not record or string.sub(record, 1, #code + 3) ~= '\1d' .. code .. ' ' or redis.call('ZSCORE', zset_of(code), id) then return 0 end
unlock_memory()
redis.call('ZADD', zset_of(code), due, id)
redis.call('ZADD', K_DUE, 'LT', due, string.sub(code, 3))
return 1
