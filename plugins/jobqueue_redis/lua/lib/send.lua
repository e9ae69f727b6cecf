-- use: drop
-- What a script tells storage and those who listen. A blob is made by the client before it is known which of its rows come to be: `refused` is an array
-- of the numbers (from 0) of those that do not.

-- A batch of executions: `blob` is a msgpack array of `n` of them. When more than `most` rows wait for storage, the oldest are dropped and counted.
local function send_history(blob, n, refused, most)
  local rows = n - #refused
  if rows <= 0 then return end
  local text = string.format('%.0f', rows)
  if #refused == 0 then
    redis.call('XADD', K_HISTORY, '*', '1', blob, 'n', text, 't', NOW)
  else
    redis.call('XADD', K_HISTORY, '*', '1', blob, 'n', text, 't', NOW, 'x', table.concat(refused, ','))
  end
  local waiting = redis.call('HINCRBY', K_LAG, 'history', text)
  if most and waiting > most then drop_history(most, 8) end
end

-- One dead letter, as msgpack.
local function send_dead(blob)
  redis.call('XADD', K_DEAD, '*', '1', blob, 't', NOW)
  redis.call('HINCRBY', K_LAG, 'dead', 1)
end

local function listening()
  return redis.call('EXISTS', K_LISTENED) == 1
end

-- An event, when someone listens: `blob` is msgpack [kind, data], '' for none; `refused` means items of `jobs` in its data. The log keeps some 10,000
-- events, fewer big ones. What is dropped is said by moving the position at which listening began: who has read less far has missed some.
local function send_event(blob, refused)
  if blob == '' or not listening() then return end
  local most = string.format('%.0f', math.min(10000, math.max(200, math.floor(33554432 / #blob))))
  local before = redis.call('XLEN', K_EVENTS)
  if #refused == 0 then
    redis.call('XADD', K_EVENTS, 'MAXLEN', '~', most, '*', '1', blob, 't', NOW)
  else
    redis.call('XADD', K_EVENTS, 'MAXLEN', '~', most, '*', '1', blob, 't', NOW, 'x', table.concat(refused, ','))
  end
  if redis.call('XLEN', K_EVENTS) <= before then
    redis.call('SET', K_LISTENED, redis.call('XRANGE', K_EVENTS, '-', '+', 'COUNT', 1)[1][1], 'KEEPTTL')
  end
end
