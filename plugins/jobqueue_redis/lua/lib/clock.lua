-- The broker's clock: `now` in microseconds, `NOW` as text, `T` as eight bytes.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local NOW = string.format('%.0f', now)
local T = struct.pack('>I8', now)
