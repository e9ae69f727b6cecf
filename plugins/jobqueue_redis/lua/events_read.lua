-- Events after a position; and the log is written for as long again.
-- use: unlock
-- ARGV: prefix, for how long (ms), most, position ('': none; 'began': that at which listening began)
-- Answer: the position at which listening began (or before which the log was trimmed), the position of the last event, events.
local keep, most, after = ARGV[2], ARGV[3], ARGV[4]

local function last_id()
  local info = redis.pcall('XINFO', 'STREAM', K_EVENTS)
  for n = 1, #info, 2 do
    if info[n] == 'last-generated-id' then return info[n + 1] end
  end
  return nil
end

local began = redis.call('GET', K_LISTENED)
local last = last_id()
if began and last then
  redis.call('PEXPIRE', K_LISTENED, keep)
else
  -- An entry that is trimmed at once moves the log on, so that positions from before the pause are known to have missed something.
  unlock_memory()
  began = redis.call('XADD', K_EVENTS, 'MAXLEN', '0', '*', 'began', '')
  last = began
  redis.call('SET', K_LISTENED, began, 'PX', keep)
end
-- The log outlives the listening: else positions would begin again.
redis.call('PEXPIRE', K_EVENTS, string.format('%.0f', 2 * tonumber(keep)))
if after == 'began' then after = began end
local events = {}
if after ~= '' then events = redis.call('XRANGE', K_EVENTS, '(' .. after, '+', 'COUNT', most) end
return {began, last, events}
