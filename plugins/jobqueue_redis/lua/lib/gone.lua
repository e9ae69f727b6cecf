-- Whether of some entries of outbox:history a part is gone: beside three numbers the hash has a field for each of them.
local function some_are_gone()
  local numbers = 0
  for _, number in ipairs(redis.call('HMGET', K_LAG, 'history', 'dead', 'dropped')) do
    if number then numbers = numbers + 1 end
  end
  return redis.call('HLEN', K_LAG) > numbers
end
