-- Count what happened in a queue: in its totals, and where `RATED` in the slot of the last 30 s.
local RATED = {enqueued = true, completed = true, failed = true, dead = true}

local function count(queue, what, by)
  redis.call('HINCRBY', K_STATS .. queue, what, by)
  if RATED[what] then
    local slot = K_RATE .. queue .. ':' .. string.format('%.0f', math.floor(now / 30000000))
    redis.call('HINCRBY', slot, what, by)
    redis.call('EXPIRE', slot, 400)
  end
end
