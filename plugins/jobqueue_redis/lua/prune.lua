-- Find jobs that have expired before they were started, and forget what is left of jobs and leases that are gone. Of the latter a few are looked at,
-- chosen at random: so their share stays small, whatever their number.
-- use: places, unlock
-- ARGV: prefix, limit, for how long (ms) logs of jobs that are gone are kept
-- Answer: how many things were forgotten, now, ids of jobs that have expired and wait.
local LOOKED_AT = 20
local LATER = 60000000
local limit, ttl = tonumber(ARGV[2]), ARGV[3]
local forgotten, expired = 0, {}
unlock_memory()

local function is_leased(code, entry)
  local pending = redis.pcall('XPENDING', stream_of(code), GROUP, entry, entry, 1)
  return not pending.err and #pending == 1
end

for _, id in ipairs(redis.call('ZRANGEBYSCORE', K_EXPIRING, '-inf', NOW, 'LIMIT', 0, limit)) do
  local record = redis.call('GET', K_JOB .. id)
  local kind = record and string.sub(record, 2, 2)
  local code, entry
  if kind == 'w' then code, entry = string.match(record, '^..([urs][0-3]%S+) (%d+%-%d+)$') end
  if not record or kind == 'f' then
    redis.call('ZREM', K_EXPIRING, id)
    forgotten = forgotten + 1
  elseif code and is_leased(code, entry) then
    -- Its run goes on; whether the job comes back is to be seen.
    redis.call('ZADD', K_EXPIRING, 'XX', string.format('%.0f', now + LATER), id)
  else
    expired[#expired + 1] = id
  end
end

local function look_at(members, is_gone, forget)
  for _, member in ipairs(members) do
    if forgotten + #expired >= limit then return end
    if is_gone(member) then
      forget(member)
      forgotten = forgotten + 1
    end
  end
end

local function lease_is_gone(token)
  local code, entry = string.match(token, '^([urs][0-3]%S+) (%d+%-%d+)$')
  return not code or not is_leased(code, entry)
end

look_at(redis.call('SRANDMEMBER', K_CANCELS, LOOKED_AT), lease_is_gone, function(token) redis.call('SREM', K_CANCELS, token) end)
look_at(redis.call('HRANDFIELD', K_PROGRESS, LOOKED_AT), lease_is_gone, function(token) redis.call('HDEL', K_PROGRESS, token) end)
look_at(redis.call('SRANDMEMBER', K_LOGGED, LOOKED_AT), function(id)
  local record = redis.call('GET', K_JOB .. id)
  return not record or string.sub(record, 2, 2) == 'f'
end, function(id)
  redis.call('SREM', K_LOGGED, id)
  redis.call('PEXPIRE', K_LOGS .. id, ttl)
end)
return {forgotten, NOW, expired}
