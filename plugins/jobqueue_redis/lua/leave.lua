-- A worker has stopped.
-- ARGV: prefix, worker id
redis.call('HDEL', K_WORKERS, ARGV[2])
redis.call('ZREM', K_BEATS, ARGV[2])
return 1
