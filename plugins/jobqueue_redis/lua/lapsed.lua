-- Leases that have run out, queue by queue; consumers that hold nothing and have not been seen for long are removed.
-- use: places
-- ARGV: prefix, cursor, limit, time (µs) before which nothing counts as silence, for how long (ms) a consumer is remembered
-- Answer: next cursor ('0': the end), now, notes (kind, code, entry), then of each lease: code, consumer, entry id, when it began (µs), whether the job
-- is to stop, field, value (as `lease` answers them).
local QUEUES = 50
local left, quiet, remembered = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local page = redis.call('SSCAN', K_HELD, ARGV[2], 'COUNT', QUEUES)
local found, notes = {}, {}

local function facts(pairs_of)
  local fact = {}
  for n = 1, #pairs_of, 2 do fact[pairs_of[n]] = pairs_of[n + 1] end
  return fact
end

local function lapsed(stream, code, consumer, lease)
  for _, pending in ipairs(redis.call('XPENDING', stream, GROUP, 'IDLE', lease, '-', '+', left, consumer)) do
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

for _, queue in ipairs(page[2]) do
  local held = false
  for rank = 0, 3 do
    for _, letter in ipairs(STREAMS) do
      local code = letter .. rank .. queue
      local stream = stream_of(code)
      if redis.call('EXISTS', stream) == 1 then
        local consumers = redis.pcall('XINFO', 'CONSUMERS', stream, GROUP)
        if consumers.err then consumers = {} end
        for _, one in ipairs(consumers) do
          local fact = facts(one)
          if fact.pending > 0 then
            held = true
            local lease = tonumber(string.match(fact.name, ':(%d+)$')) or remembered
            if left > 0 and now - quiet >= lease * 1000 then lapsed(stream, code, fact.name, lease) end
          elseif fact.idle >= remembered then
            redis.call('XGROUP', 'DELCONSUMER', stream, GROUP, fact.name)
          end
        end
      end
    end
  end
  if not held then redis.call('SREM', K_HELD, queue) end
end
return {page[1], NOW, notes, found}
