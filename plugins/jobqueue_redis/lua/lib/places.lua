-- Where a job is: a code such as 's2default' (letter, rank of the priority, queue), as keys.py describes.
-- The streams of a queue and priority, in the order in which they are leased from.
local STREAMS = {'u', 'r', 's'}
local PRIORITIES = {['0'] = 'critical', ['1'] = 'high', ['2'] = 'medium', ['3'] = 'low'}

local function stream_of(code)
  local letter, base = string.sub(code, 1, 1), K_STREAM
  if letter == 'r' then base = K_READY elseif letter == 'u' then base = K_SUSPECT end
  return base .. string.sub(code, 3) .. ':' .. PRIORITIES[string.sub(code, 2, 2)]
end

-- Where a job waits that is meant for the stream `code`: one that has crashed, as its value says (values.py), goes to those that have.
local function place_of(value, code)
  if math.floor((string.byte(value, 9) or 0) / 2) % 2 == 1 then return 'u' .. string.sub(code, 2) end
  return code
end

local function zset_of(code)
  local base = K_DELAYED
  if string.sub(code, 1, 1) == 't' then base = K_RETRY end
  return base .. string.sub(code, 3)
end
