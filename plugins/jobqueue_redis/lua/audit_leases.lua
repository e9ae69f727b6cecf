-- Leases that nobody has taken back although they ran out long ago, and consumers that hold nothing.
-- use: places
-- ARGV: prefix, after how many lengths of a lease, queue...
-- Answer: how many consumers hold nothing, then of each place with such leases, flat: place, how many (100: or more), and for how long (ms) the first of
-- them.
local MOST = 100
local lengths = tonumber(ARGV[2])
local found = {0}

local function look_at(code, stream, consumer)
  local lease = tonumber(string.match(consumer, ':(%d+)$')) or 60000
  local stuck = redis.call('XPENDING', stream, GROUP, 'IDLE', string.format('%.0f', lease * lengths), '-', '+', MOST, consumer)
  if #stuck == 0 then return end
  local longest = 0
  for _, one in ipairs(stuck) do longest = math.max(longest, one[3]) end
  for _, part in ipairs({code, #stuck, longest}) do found[#found + 1] = part end
end

for i = 3, #ARGV do
  for rank = 0, 3 do
    for _, letter in ipairs(STREAMS) do
      local code = letter .. rank .. ARGV[i]
      local stream = stream_of(code)
      local consumers = {}
      if redis.call('EXISTS', stream) == 1 then consumers = redis.pcall('XINFO', 'CONSUMERS', stream, GROUP) end
      for _, one in ipairs(consumers) do
        local fact = {}
        for n = 1, #one, 2 do fact[one[n]] = one[n + 1] end
        if fact.pending > 0 then look_at(code, stream, fact.name) else found[1] = found[1] + 1 end
      end
    end
  end
end
return found
