-- Make a dead job live again (DESIGN R13).
-- use: put, unique, send
-- ARGV: prefix, time (µs) after which it is too late ('': never), when the job was created (µs; '': say that it is now), id, place, deaths, unique key
-- ('': none), until when (µs) it is held at least ('': while the job lives), rest of the value, event
-- Answer: 'requeued', 'already', 'completed', 'key_taken', 'late', 'newer' (its record was written by a newer release), or 'unborn'
-- (it was created later than now: nothing is done, the caller is to say that it is now).
-- Repeated, it finds the job alive.
local not_after, created, id, code, deaths = ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local unique, held, rest, event = ARGV[7], ARGV[8], ARGV[9], ARGV[10]
local queue = string.sub(code, 3)

local record = redis.call('GET', K_JOB .. id)
if record and record ~= '' then
  local head = string.sub(record, 1, 2)
  local format = string.byte(record)
  if format > 1 and format < 32 then return 'newer' end
  if head == '\1w' or head == '\1d' then return 'already' end
  -- A record that cannot be read says nothing of a living job, and the dead letter has all that is needed.
  local state, died, value = string.match(record, '^\1f([cdx])(%d+):[^ ]* ()')
  if state == 'c' then return 'completed' end
  if state and (state ~= 'd' or died ~= deaths) then return 'already' end
  if state and #record > value + 8 then rest = string.sub(record, value + 8, value + 8) .. string.sub(rest, 2) end
end
if not_after ~= '' and now > tonumber(not_after) then return 'late' end
if created ~= '' and now < tonumber(created) then return 'unborn' end
if unique ~= '' then
  local holder = holder_of(queue, unique)
  if holder and holder ~= id then return 'key_taken' end
end

put_in_stream(id, code, T .. rest)
if unique ~= '' then take_key(queue, unique, id, held ~= '' and held - now or nil) end
if redis.call('PERSIST', K_LOGS .. id) == 1 then redis.call('SADD', K_LOGGED, id) end
redis.call('SADD', K_QUEUES, queue)
send_event(event, {})
return 'requeued'
