-- Records that point to what is not there.
-- use: places
-- ARGV: prefix, job id...
-- Answer: of each, flat: id, place and entry id ('' of a sorted set); place '' of a record that does not say where the job is.
local found = {}

local function note(...)
  for _, part in ipairs({...}) do found[#found + 1] = part end
end

for i = 2, #ARGV do
  local id = ARGV[i]
  local record = redis.pcall('GET', K_JOB .. id)
  if type(record) == 'table' then record = '' end
  if record and string.sub(record, 1, 1) <= '\1' then
    local kind = string.sub(record, 2, 2)
    if kind == 'w' then
      local code, entry = string.match(record, '^..([urs][0-3]%S+) (%d+%-%d+)$')
      if not code then
        note(id, '', '')
      elseif #redis.call('XRANGE', stream_of(code), entry, entry) == 0 then
        note(id, code, entry)
      end
    elseif kind == 'd' then
      local code = string.match(record, '^..([dt][0-3]%S+) ')
      if not code then
        note(id, '', '')
      elseif not redis.call('ZSCORE', zset_of(code), id) then
        note(id, code, '')
      end
    elseif kind ~= 'f' then
      note(id, '', '')
    end
  end
end
return found
