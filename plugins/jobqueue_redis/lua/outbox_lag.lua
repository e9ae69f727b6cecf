-- How far storage is behind.
-- ARGV: prefix
-- Answer: rows of history and of dead letters, rows dropped, age (µs) of the oldest entry of either.
local lag = redis.call('HMGET', K_LAG, 'history', 'dead', 'dropped')
local age = 0
for _, stream in ipairs({K_HISTORY, K_DEAD}) do
  local first = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
  if first then age = math.max(age, now - tonumber(string.match(first[1], '^%d+')) * 1000) end
end
return {tonumber(lag[1]) or 0, tonumber(lag[2]) or 0, tonumber(lag[3]) or 0, string.format('%.0f', age)}
