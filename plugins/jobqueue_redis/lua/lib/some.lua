-- Entries of a stream from `from` on: at most `most`, and no more when they come to `bytes`. `chunk` is how many to read at first, before it is known
-- how big they are. Answers the entries, and whether these were the last.
local function some_entries(stream, from, most, bytes, chunk)
  local found, size = {}, 0
  while #found < most and size < bytes do
    local asked = math.min(chunk, most - #found)
    local read = redis.call('XRANGE', stream, from, '+', 'COUNT', asked)
    for _, entry in ipairs(read) do
      for _, text in ipairs(entry[2]) do size = size + #text end
      found[#found + 1] = entry
    end
    if #read < asked then return found, true end
    from = '(' .. read[#read][1]
    chunk = math.max(1, math.min(200, math.floor((bytes - size) * #found / (size + 1))))
  end
  return found, false
end
