-- Unique keys whose holder is gone, and logs without an end of jobs that are gone.
-- ARGV: prefix, whether to remove them (1 or 0), what (unique or logs), keys without what is before their names...
-- Answer: how many.
local removes, what = ARGV[2] == '1', ARGV[3]
local found = 0
for i = 4, #ARGV do
  local key, id = K_LOGS .. ARGV[i], ARGV[i]
  if what == 'unique' then
    key = K_UNIQUE .. ARGV[i]
    local value = redis.pcall('GET', key)
    id = type(value) == 'string' and string.sub(value, 1, 36) or nil
  end
  if id and redis.call('TTL', key) == -1 and redis.call('EXISTS', K_JOB .. id) == 0 and redis.call('SISMEMBER', K_LOGGED, id) == 0 then
    found = found + 1
    if removes then redis.call('DEL', key) end
  end
end
return found
