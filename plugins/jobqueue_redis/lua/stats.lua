-- Queues in numbers, at a cost that does not depend on their depth.
-- use: places
-- ARGV: prefix, queue...
-- Answer: of each false when it is unknown, else: whether it is paused; waiting by priority (4); processing, scheduled, retrying; totals enqueued,
-- completed, failed, dead, cancelled; enqueued, completed, failed, dead in the last five minutes; for how long (µs) the first of those that wait has
-- waited, '' when none waits. All but the last are numbers.
local SLOT, SLOTS = 30000000, 10

-- How many are leased, and the last id that was handed out.
local function group_of(stream)
  local groups = redis.pcall('XINFO', 'GROUPS', stream)
  for _, group in ipairs(groups) do
    if group[2] == GROUP then
      local fact = {}
      for n = 1, #group, 2 do fact[group[n]] = group[n + 1] end
      return fact.pending, fact['last-delivered-id']
    end
  end
  return 0, '0-0'
end

local function number(text) return tonumber(text) or 0 end

local function stats(queue)
  local answer = {redis.call('EXISTS', K_PAUSED .. queue)}
  local processing, oldest = 0, nil
  for rank = 0, 3 do
    local waiting = 0
    for _, letter in ipairs(STREAMS) do
      local stream = stream_of(letter .. rank .. queue)
      local length = redis.call('XLEN', stream)
      if length > 0 then
        local pending, last = group_of(stream)
        processing = processing + pending
        if length > pending then
          waiting = waiting + length - pending
          local first = redis.call('XRANGE', stream, '(' .. last, '+', 'COUNT', 1)[1]
          local since = first and tonumber(string.match(first[1], '^%d+')) * 1000
          if since and (not oldest or since < oldest) then oldest = since end
        end
      end
    end
    answer[#answer + 1] = waiting
  end
  answer[#answer + 1] = processing
  answer[#answer + 1] = redis.call('ZCARD', K_DELAYED .. queue)
  answer[#answer + 1] = redis.call('ZCARD', K_RETRY .. queue)
  for _, total in ipairs(redis.call('HMGET', K_STATS .. queue, 'enqueued', 'completed', 'failed', 'dead', 'cancelled')) do
    answer[#answer + 1] = number(total)
  end
  local rates = {0, 0, 0, 0}
  local slot = math.floor(now / SLOT)
  for n = 0, SLOTS - 1 do
    local counts = redis.call('HMGET', K_RATE .. queue .. ':' .. string.format('%.0f', slot - n), 'enqueued', 'completed', 'failed', 'dead')
    for kind = 1, 4 do rates[kind] = rates[kind] + number(counts[kind]) end
  end
  for _, rate in ipairs(rates) do answer[#answer + 1] = rate end
  answer[#answer + 1] = oldest and string.format('%.0f', math.max(now - oldest, 0)) or ''
  return answer
end

local answers = {}
for i = 2, #ARGV do
  answers[i - 1] = redis.call('SISMEMBER', K_QUEUES, ARGV[i]) == 1 and stats(ARGV[i])
end
return answers
