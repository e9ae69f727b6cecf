-- Give entries back as they are: for one that this release cannot read.
-- use: put
-- ARGV: prefix, then code and entry id of each
for i = 2, #ARGV, 2 do
  local code, entry = ARGV[i], ARGV[i + 1]
  local stream = stream_of(code)
  local found = redis.call('XRANGE', stream, entry, entry)[1]
  if redis.call('XACK', stream, GROUP, entry) == 1 and found then
    redis.call('XDEL', stream, entry)
    local moved = 'r' .. string.sub(code, 2)
    local new = redis.call('XADD', stream_of(moved), '*', unpack(found[2]))
    ring_for(moved)
  end
end
return 1
