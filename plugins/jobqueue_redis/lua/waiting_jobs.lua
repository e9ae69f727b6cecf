-- List jobs of a queue that nobody has: those that are ready, then scheduled and retrying ones. Changes nothing.
-- use: places
-- ARGV: prefix, queue, limit
-- Answer: for each of the first: place, entry id, field, value (as `lease` answers them); then for each of the others: place (with any priority), member,
-- '', record (false: none).
local queue, left = ARGV[2], tonumber(ARGV[3])
local MOST_BYTES = 1048576
local found, bytes = {}, 0

local function add(code, at, field, value)
  for _, part in ipairs({code, at, field, value}) do found[#found + 1] = part end
  left = left - 1
  bytes = bytes + (value and #value or 0)
end

-- Entries after this one have not been handed out.
local function last_delivered(stream)
  local groups = redis.pcall('XINFO', 'GROUPS', stream)
  if groups.err then return '0-0' end
  for _, group in ipairs(groups) do
    local fact = {}
    for n = 1, #group, 2 do fact[group[n]] = group[n + 1] end
    if fact.name == GROUP then return fact['last-delivered-id'] end
  end
  return '0-0'
end

local function list_stream(code)
  local stream = stream_of(code)
  if redis.call('EXISTS', stream) == 0 then return end
  local last = last_delivered(stream)
  -- One by one, for each may be of any size.
  while left > 0 and bytes < MOST_BYTES do
    local entry = redis.call('XRANGE', stream, '(' .. last, '+', 'COUNT', 1)[1]
    if not entry then return end
    local fields = entry[2]
    local field, value = fields[1], fields[2]
    if #fields ~= 2 then field, value = '?', cmsgpack.pack(fields) end
    last = entry[1]
    add(code, last, field, value)
  end
end

local function list_zset(letter)
  local code = letter .. '2' .. queue
  for _, member in ipairs(redis.call('ZRANGE', zset_of(code), 0, left - 1)) do
    if left <= 0 or bytes >= MOST_BYTES then return end
    add(code, member, '', redis.call('GET', K_JOB .. member))
  end
end

for rank = 0, 3 do
  for _, letter in ipairs(STREAMS) do list_stream(letter .. rank .. queue) end
end
for _, letter in ipairs({'d', 't'}) do
  if left > 0 then list_zset(letter) end
end
return found
