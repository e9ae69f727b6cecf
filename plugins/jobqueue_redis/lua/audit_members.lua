-- Members of a sorted set of delayed jobs whose record does not say that they are there.
-- use: places
-- ARGV: prefix, place (with any priority), member...
-- Answer: of each, flat: member, record (false: none).
local zset = zset_of(ARGV[2])
local found = {}
for i = 3, #ARGV do
  local record = redis.pcall('GET', K_JOB .. ARGV[i])
  if type(record) == 'table' then record = '' end
  local code = record and string.match(record, '^.d([dt][0-3]%S+) ')
  if not (code and zset_of(code) == zset) and redis.call('ZSCORE', zset, ARGV[i]) then
    found[#found + 1] = ARGV[i]
    found[#found + 1] = record
  end
end
return found
