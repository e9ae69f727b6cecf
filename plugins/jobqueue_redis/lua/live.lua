-- The ids of jobs that wait in streams, or are leased from them.
-- use: places, some
-- ARGV: prefix, what ('waiting' or 'leased'), most, entry id after which to go on in the first of the streams ('': from its beginning), code...
-- Answer: how many of the streams are done, the entry id after which to go on in the next ('' when it has not been begun), job ids.
-- A value begins: time (8 bytes), flags (1), format of the job (1), head of its array (3), head of the id (2), id (36); see values.py.
local BYTES = 2097152
local what, most, after = ARGV[2], tonumber(ARGV[3]), ARGV[4]
local ids, bytes = {}, 0

local function note(entry)
  local value = entry and #entry[2] == 2 and entry[2][2] or ''
  bytes = bytes + #value
  if string.sub(value, 14, 15) == '\217\36' then ids[#ids + 1] = string.sub(value, 16, 51) end
end

local function last_delivered(stream)
  local groups = redis.pcall('XINFO', 'GROUPS', stream)
  for _, group in ipairs(groups) do
    for n = 1, #group, 2 do
      if group[2] == GROUP and group[n] == 'last-delivered-id' then return group[n + 1] end
    end
  end
  return '0-0'
end

-- Both answer the id of the last entry they have seen, or nil when there are no more.
local function waiting(stream)
  if after == '' then after = last_delivered(stream) end
  local entries, ended = some_entries(stream, '(' .. after, most - #ids, BYTES - bytes, 8)
  for _, entry in ipairs(entries) do note(entry) end
  return not ended and entries[#entries][1] or nil
end

local function leased(stream)
  local from = after == '' and '-' or '(' .. after
  local asked = math.min(most - #ids, 200)
  local pending = redis.pcall('XPENDING', stream, GROUP, from, '+', asked)
  if pending.err then return nil end
  for n, one in ipairs(pending) do
    note(redis.call('XRANGE', stream, one[1], one[1])[1])
    if bytes >= BYTES and n < #pending then return one[1] end
  end
  return #pending == asked and pending[asked][1] or nil
end

local i = 5
while i <= #ARGV and #ids < most and bytes < BYTES do
  local stream, seen = stream_of(ARGV[i]), nil
  if redis.call('XLEN', stream) > 0 then
    if what == 'waiting' then seen = waiting(stream) else seen = leased(stream) end
  end
  after = seen or ''
  if not seen then i = i + 1 end
end
return {i - 5, after, ids}
