-- Drop what is too much of the history that waits for storage, and set right the numbers of what does not wait any more.
-- use: unlock, drop, gone
-- ARGV: prefix, most rows
-- Answer: 1 when there may be more to drop.
local most = tonumber(ARGV[2])
unlock_memory()
drop_history(most, 64)
for kind, stream in pairs({history = K_HISTORY, dead = K_DEAD}) do
  local kept = redis.call('HGET', K_LAG, kind)
  if kept and kept ~= '0' and redis.call('XLEN', stream) == 0 then redis.call('HSET', K_LAG, kind, '0') end
end
if some_are_gone() then
  for _, field in ipairs(redis.call('HKEYS', K_LAG)) do
    local id = string.match(field, '^gone:(%d+%-%d+)$')
    if id and #redis.call('XRANGE', K_HISTORY, id, id) == 0 then redis.call('HDEL', K_LAG, field) end
  end
end
return (tonumber(redis.call('HGET', K_LAG, 'history')) or 0) > most and redis.call('XLEN', K_HISTORY) > 0 and 1 or 0
