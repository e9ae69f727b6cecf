-- use: places
-- What is known of a job, for values.py to read: its record and, for one in a stream, its entry, holder, when it was leased (µs), whether it is to
-- stop, and its progress. false when it is unknown.
local function look(id)
  local record = redis.call('GET', K_JOB .. id)
  if not record then return false end
  if string.sub(record, 2, 2) ~= 'w' then return {record} end
  local code, entry = string.match(record, '^..([urs][0-3]%S+) (%d+%-%d+)$')
  if not code then return {record} end
  local stream = stream_of(code)
  local found = redis.call('XRANGE', stream, entry, entry)
  local fields = {}
  if found[1] then fields = found[1][2] end
  local pending = redis.pcall('XPENDING', stream, GROUP, entry, entry, 1)
  if pending.err or not pending[1] then return {record, fields} end
  local token = code .. ' ' .. entry
  local progress = redis.call('HGET', K_PROGRESS, token)
  return {record, fields, pending[1][2], string.format('%.0f', pending[1][4]), redis.call('SISMEMBER', K_CANCELS, token), progress}
end
