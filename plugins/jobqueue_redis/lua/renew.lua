-- Hold leases for their whole length from now.
-- use: places, unlock
-- ARGV: prefix, consumer, then for each stream its code, how many leases, and of each the entry id and the job id.
-- Answer: numbers (from 1) of the leases that are lost, and of those whose job is to stop.
local consumer = ARGV[2]
local stopping = redis.call('EXISTS', K_CANCELS) == 1
local lost, cancelled = {}, {}
local number = 0
local i = 3
while i <= #ARGV do
  local code, count = ARGV[i], tonumber(ARGV[i + 1])
  local stream = stream_of(code)
  local ids = {}
  for n = 1, count do ids[n] = ARGV[i + 2 * n] end
  local function claim(...)
    local call = {'XCLAIM', stream, GROUP, consumer, '0'}
    for _, id in ipairs(ids) do call[#call + 1] = id end
    for _, option in ipairs({...}) do call[#call + 1] = option end
    return redis.pcall(unpack(call))
  end
  local kept = claim('JUSTID')
  if kept.err and redis.call('EXISTS', stream) == 1 then
    -- Somebody has destroyed the group. Made anew, it hands everything out again; what is held here is held first.
    unlock_memory()
    redis.call('XGROUP', 'CREATE', stream, GROUP, '0')
    kept = claim('FORCE', 'RETRYCOUNT', NOW, 'JUSTID')
  end
  local is_kept = {}
  if not kept.err then
    for _, id in ipairs(kept) do if id then is_kept[id] = true end end
  end
  for n, id in ipairs(ids) do
    number = number + 1
    -- An entry that is gone was moved, or the stream was deleted: then the record still points to it, and nobody else can have the job.
    if not is_kept[id] and redis.call('GET', K_JOB .. ARGV[i + 2 * n + 1]) ~= '\1w' .. code .. ' ' .. id then
      lost[#lost + 1] = number
    elseif stopping and redis.call('SISMEMBER', K_CANCELS, code .. ' ' .. id) == 1 then
      cancelled[#cancelled + 1] = number
    end
  end
  i = i + 2 + 2 * count
end
return {lost, cancelled}
