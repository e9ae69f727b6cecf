-- use: places, ring
-- Put an unfinished job where it belongs; `value` is what values.py calls a value: the time and the rest. Each also writes the job's record.
local function put_in_stream(id, code, value)
  code = place_of(value, code)
  local entry = redis.call('XADD', stream_of(code), '*', '1', value)
  redis.call('SET', K_JOB .. id, '\1w' .. code .. ' ' .. entry)
  ring_for(code)
  return entry
end

local function put_in_zset(id, code, value, due)
  local text = string.format('%.0f', due)
  redis.call('ZADD', zset_of(code), text, id)
  redis.call('ZADD', K_DUE, 'LT', text, string.sub(code, 3))
  redis.call('SET', K_JOB .. id, '\1d' .. code .. ' ' .. value)
end
