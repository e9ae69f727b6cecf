-- Leases that a worker holds, queue by queue.
-- use: places
-- ARGV: prefix, cursor, limit, worker id
-- Answer: as `lapsed`.
local QUEUES = 50
local left, owner = tonumber(ARGV[3]), ARGV[4] .. ':'
local page = redis.call('SSCAN', K_HELD, ARGV[2], 'COUNT', QUEUES)
local found, notes = {}, {}
for _, queue in ipairs(page[2]) do
  for rank = 0, 3 do
    for _, letter in ipairs(STREAMS) do
      local code = letter .. rank .. queue
      local stream = stream_of(code)
      local consumers = {}
      if redis.call('EXISTS', stream) == 1 then consumers = redis.pcall('XINFO', 'CONSUMERS', stream, GROUP) end
      if consumers.err then consumers = {} end
      for _, one in ipairs(consumers) do
        local consumer = one[2]
        if left > 0 and string.sub(consumer, 1, #owner) == owner then
          for _, pending in ipairs(redis.call('XPENDING', stream, GROUP, '-', '+', left, consumer)) do
            local id = pending[1]
            local entry = redis.call('XRANGE', stream, id, id)[1]
            if entry then
              local fields = entry[2]
              local field, value = fields[1], fields[2]
              if #fields ~= 2 then field, value = '?', cmsgpack.pack(fields) end
              local stops = redis.call('SISMEMBER', K_CANCELS, code .. ' ' .. id)
              for _, part in ipairs({code, consumer, id, string.format('%.0f', pending[4]), stops, field, value}) do found[#found + 1] = part end
              left = left - 1
            else
              redis.call('XACK', stream, GROUP, id)
              notes[#notes + 1] = {'vanished', code, id}
            end
          end
        end
      end
    end
  end
end
return {page[1], NOW, notes, found}
