-- Drop the oldest executions that wait for storage until no more than `most` rows do, looking at no more than `entries` entries. Rows that are gone of
-- an entry (dropped, or acknowledged by a reader that took a part of it) are its first ones: their number stands in `gone:<entry id>` of the hash.
local function drop_history(most, entries)
  local surplus = (tonumber(redis.call('HGET', K_LAG, 'history')) or 0) - most
  if surplus <= 0 then return 0 end
  local dropped = 0
  for _, entry in ipairs(redis.call('XRANGE', K_HISTORY, '-', '+', 'COUNT', entries)) do
    local id = entry[1]
    local rows = 0
    for field = 1, #entry[2], 2 do
      if entry[2][field] == 'n' then rows = tonumber(entry[2][field + 1]) or 0 end
    end
    local gone = tonumber(redis.call('HGET', K_LAG, 'gone:' .. id)) or 0
    local left = math.max(rows - gone, 0)
    if left <= surplus - dropped then
      redis.call('XDEL', K_HISTORY, id)
      if gone > 0 then redis.call('HDEL', K_LAG, 'gone:' .. id) end
      dropped = dropped + left
    else
      redis.call('HSET', K_LAG, 'gone:' .. id, string.format('%.0f', gone + surplus - dropped))
      dropped = surplus
    end
    if dropped >= surplus then break end
  end
  if dropped > 0 then
    redis.call('HINCRBY', K_LAG, 'history', string.format('%.0f', -dropped))
    redis.call('HINCRBY', K_LAG, 'dropped', string.format('%.0f', dropped))
  end
  return dropped
end
