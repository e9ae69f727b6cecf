-- What running jobs say of themselves. Sent again, it adds no line twice: those of the last call are then the last ones there are.
-- use: places
-- ARGV: prefix, most lines, then for each job: code, entry id, job id, progress ('': no news), how many lines, and the lines
local most = tonumber(ARGV[2])
local i = 3
while i <= #ARGV do
  local code, entry, id, progress, count = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], tonumber(ARGV[i + 4])
  local pending = redis.pcall('XPENDING', stream_of(code), GROUP, entry, entry, 1)
  if not pending.err and #pending == 1 then
    if progress ~= '' then redis.call('HSET', K_PROGRESS, code .. ' ' .. entry, progress) end
    if count > 0 then
      local lines = {}
      local before = redis.call('LRANGE', K_LOGS .. id, -count, -1)
      local is_new = #before < count
      for n = 1, count do
        lines[n] = ARGV[i + 4 + n]
        is_new = is_new or before[n] ~= lines[n]
      end
      if is_new then
        redis.call('RPUSH', K_LOGS .. id, unpack(lines))
        redis.call('LTRIM', K_LOGS .. id, -most, -1)
      end
      redis.call('SADD', K_LOGGED, id)
    end
  end
  i = i + 5 + count
end
return 1
