-- Look again in a minute at jobs that have expired and could not be cancelled, so that they do not hide others.
-- use: unlock
-- ARGV: prefix, job id...
unlock_memory()
for i = 2, #ARGV do redis.call('ZADD', K_EXPIRING, 'XX', string.format('%.0f', now + 60000000), ARGV[i]) end
return 1
