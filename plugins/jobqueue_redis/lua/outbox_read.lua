-- Entries of an outbox, oldest first.
-- use: some, gone
-- ARGV: prefix, kind (history or dead), entry id after which to go on ('': from the beginning), rows wanted
-- Answer: whether these were the last, how many rows are gone of entries of which some are (flat: entry id, rows), entries.
local BYTES = 2097152
local kind, after, wanted = ARGV[2], ARGV[3], tonumber(ARGV[4])
local stream = kind == 'history' and K_HISTORY or K_DEAD
local rows_each = 1
if kind == 'history' then
  local entries = redis.call('XLEN', stream)
  if entries > 0 then rows_each = math.max((tonumber(redis.call('HGET', K_LAG, 'history')) or 0) / entries, 1) end
end
local most = math.max(1, math.min(500, math.ceil(wanted / rows_each)))
local entries, ended = some_entries(stream, after == '' and '-' or '(' .. after, most, BYTES, kind == 'history' and math.min(most, 200) or 8)
local gone = {}
if kind == 'history' and some_are_gone() then
  for _, entry in ipairs(entries) do
    local rows = redis.call('HGET', K_LAG, 'gone:' .. entry[1])
    if rows then
      gone[#gone + 1] = entry[1]
      gone[#gone + 1] = rows
    end
  end
end
return {ended and 1 or 0, gone, entries}
