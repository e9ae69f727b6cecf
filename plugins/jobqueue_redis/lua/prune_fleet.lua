-- Forget workers and types that have not been seen for long.
-- ARGV: prefix, limit, for how long (µs) workers are kept, and types
-- Answer: how many were forgotten.
local forgotten = 0
local function forget(seen, said, kept)
  local before = string.format('%.0f', now - tonumber(kept))
  for _, name in ipairs(redis.call('ZRANGEBYSCORE', seen, '-inf', before, 'LIMIT', 0, tonumber(ARGV[2]) - forgotten)) do
    redis.call('ZREM', seen, name)
    redis.call('HDEL', said, name)
    forgotten = forgotten + 1
  end
end
forget(K_BEATS, K_WORKERS, ARGV[3])
forget(K_TYPES_SEEN, K_TYPES, ARGV[4])
return forgotten
