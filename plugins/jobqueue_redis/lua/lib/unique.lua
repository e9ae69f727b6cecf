-- Unique keys: the value is the id of the holder (36 characters), then until when (µs) it holds the key whatever becomes of it, if there is such a time.
local function held_until(value)
  return tonumber(string.sub(value, 37)) or 0
end

-- The id of the job that holds `key` of `queue`, or nil; a holder that is gone, or has ended and whose time has passed, holds nothing.
local function holder_of(queue, key)
  local value = redis.call('GET', K_UNIQUE .. queue .. ':' .. key)
  if not value then return nil end
  local id = string.sub(value, 1, 36)
  local record = redis.call('GET', K_JOB .. id)
  if not record then return nil end
  if string.sub(record, 2, 2) == 'f' and held_until(value) <= now then return nil end
  return id
end

-- `lasts` is for how long (µs) the key is held at least, or nil.
local function take_key(queue, key, id, lasts)
  local value = id
  if lasts then value = id .. string.format('%.0f', now + lasts) end
  redis.call('SET', K_UNIQUE .. queue .. ':' .. key, value)
end

-- The job has ended: its key is free, or will be when its time has passed.
local function release_key(queue, key, id)
  local name = K_UNIQUE .. queue .. ':' .. key
  local value = redis.call('GET', name)
  if not value or string.sub(value, 1, 36) ~= id then return end
  local until_us = held_until(value)
  if until_us > now then
    redis.call('PEXPIREAT', name, string.format('%.0f', math.ceil(until_us / 1000)))
  else
    redis.call('DEL', name)
  end
end
