-- Remove what storage has. Repeating it is harmless: what is gone already is known by the entry, or by the number of its rows that are gone.
-- use: unlock, gone
-- ARGV: prefix, kind (history or dead), then of each entry its id, how many of its rows (the first) storage has, how many it had
local kind = ARGV[2]
local stream = kind == 'history' and K_HISTORY or K_DEAD
unlock_memory()
local parts = some_are_gone()
local removed = 0
for i = 3, #ARGV, 3 do
  local id, has, rows = ARGV[i], tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2])
  local mark = 'gone:' .. id
  local gone = parts and tonumber(redis.call('HGET', K_LAG, mark)) or 0
  if has >= rows then
    if redis.call('XDEL', stream, id) == 1 then
      removed = removed + math.max(rows - gone, 0)
      if gone > 0 then redis.call('HDEL', K_LAG, mark) end
    end
  elseif has > gone and #redis.call('XRANGE', stream, id, id) == 1 then
    redis.call('HSET', K_LAG, mark, ARGV[i + 1])
    parts = true
    removed = removed + has - gone
  end
end
if removed > 0 and redis.call('HINCRBY', K_LAG, kind, string.format('%.0f', -removed)) < 0 then redis.call('HSET', K_LAG, kind, '0') end
return 1
