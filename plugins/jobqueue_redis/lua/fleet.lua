-- Workers, or types, that were seen lately.
-- ARGV: prefix, what (workers or types), for how long (µs) they are shown
-- Answer: of each when it was seen (µs) and what it said.
local seen, said = K_BEATS, K_WORKERS
if ARGV[2] == 'types' then seen, said = K_TYPES_SEEN, K_TYPES end
local found = {}
local names = redis.call('ZRANGEBYSCORE', seen, string.format('(%.0f', now - tonumber(ARGV[3])), '+inf', 'WITHSCORES')
for n = 1, #names, 2 do
  local text = redis.call('HGET', said, names[n])
  if text then
    found[#found + 1] = names[n + 1]
    found[#found + 1] = text
  end
end
return found
