-- Queues whose work nobody would be told of: doctor looks, and may mend it.
-- use: places, ring, unlock
-- ARGV: prefix, whether to mend (1 or 0), queue...
-- Answer: of what is wrong, flat: kind (work, held, due, group) and place or queue.
local mends = ARGV[2] == '1'
local found = {}

local function note(kind, what)
  found[#found + 1] = kind
  found[#found + 1] = what
end

-- How many jobs wait in a stream, and how many are leased.
local function count_stream(code)
  local stream = stream_of(code)
  local length = redis.call('XLEN', stream)
  if length == 0 then return 0, 0 end
  for _, group in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
    if group[2] == GROUP then
      for n = 1, #group, 2 do
        if group[n] == 'pending' then return length - group[n + 1], group[n + 1] end
      end
    end
  end
  if redis.call('SISMEMBER', K_GROUPED, code) == 1 then note('group', code) end
  if mends then redis.call('XGROUP', 'CREATE', stream, GROUP, '0') end
  return length, 0
end

local function first_due(queue)
  local first
  for _, zset in ipairs({K_DELAYED .. queue, K_RETRY .. queue}) do
    local due = redis.call('ZRANGE', zset, 0, 0, 'WITHSCORES')[2]
    if due and (not first or tonumber(due) < tonumber(first)) then first = due end
  end
  return first
end

if mends then unlock_memory() end
for i = 3, #ARGV do
  local queue = ARGV[i]
  local waiting, suspects, leased = 0, 0, 0
  for rank = 0, 3 do
    for _, letter in ipairs(STREAMS) do
      local of_stream, held = count_stream(letter .. rank .. queue)
      if letter == 'u' then suspects = suspects + of_stream else waiting = waiting + of_stream end
      leased = leased + held
    end
  end
  if waiting > 0 and redis.call('SISMEMBER', K_WORK, queue) == 0 then
    note('work', queue)
    if mends then ring(queue) end
  end
  if suspects > 0 and redis.call('SISMEMBER', K_SUSPECTED, queue) == 0 then
    note('work', queue)
    if mends then ring_suspects(queue) end
  end
  if leased > 0 and redis.call('SISMEMBER', K_HELD, queue) == 0 then
    note('held', queue)
    if mends then redis.call('SADD', K_HELD, queue) end
  end
  local due = first_due(queue)
  local known = redis.call('ZSCORE', K_DUE, queue)
  if due and (not known or tonumber(known) > tonumber(due)) then
    note('due', queue)
    if mends then redis.call('ZADD', K_DUE, due, queue) end
  end
end
return found
