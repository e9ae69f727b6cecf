-- Where a job is: a code such as 's2default' (letter, rank of the priority, queue), as keys.py describes.
local PRIORITIES = {['0'] = 'critical', ['1'] = 'high', ['2'] = 'medium', ['3'] = 'low'}

local function stream_of(code)
  local base = K_STREAM
  if string.sub(code, 1, 1) == 'r' then base = K_READY end
  return base .. string.sub(code, 3) .. ':' .. PRIORITIES[string.sub(code, 2, 2)]
end

local function zset_of(code)
  local base = K_DELAYED
  if string.sub(code, 1, 1) == 't' then base = K_RETRY end
  return base .. string.sub(code, 3)
end
