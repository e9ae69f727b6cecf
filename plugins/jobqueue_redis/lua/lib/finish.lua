-- use: unique
-- Write the record of a job that has ended. `state` is c, d or x (completed, dead, cancelled); `extra` is '' or a msgpack map of what else is to be
-- done: deaths, unique (its key), expires (if it would have), keep_until (µs: its record is needed so long). `ttl` is in milliseconds, as text.
local some_logged = redis.call('EXISTS', K_LOGGED) == 1

local function finish(id, queue, state, rest, extra, ttl)
  local deaths = '0'
  if extra ~= '' then
    local more = cmsgpack.unpack(extra)
    if more.deaths then deaths = string.format('%d', more.deaths) end
    if more.unique then release_key(queue, more.unique, id) end
    if more.expires then redis.call('ZREM', K_EXPIRING, id) end
    if more.keep_until then ttl = string.format('%.0f', math.max(tonumber(ttl), math.ceil((more.keep_until - now) / 1000))) end
  end
  redis.call('SET', K_JOB .. id, '\1f' .. state .. deaths .. ':' .. queue .. ' ' .. T .. rest, 'PX', ttl)
  if some_logged and redis.call('SREM', K_LOGGED, id) == 1 then redis.call('PEXPIRE', K_LOGS .. id, ttl) end
end
