-- A worker lives.
-- use: unlock
-- ARGV: prefix, worker id, what it says of itself, then of each type its name and what is known of it
unlock_memory()
redis.call('HSET', K_WORKERS, ARGV[2], ARGV[3])
redis.call('ZADD', K_BEATS, NOW, ARGV[2])
for i = 4, #ARGV, 2 do
  redis.call('HSET', K_TYPES, ARGV[i], ARGV[i + 1])
  redis.call('ZADD', K_TYPES_SEEN, NOW, ARGV[i])
end
return 1
