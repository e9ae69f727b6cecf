-- Make due jobs ready: of all queues those due first, each at the tail of its stream.
-- use: places, ring
-- ARGV: prefix, limit (0: only tell whether something is due)
-- Answer: how many were promoted; when the first of those left was due ('': nothing more is); whether anything has changed; then for each thing found
-- that is no delayed job: place (with any priority), member, record (false: none). These are left to the caller, who makes dead letters of them.
-- Repeated, it promotes others. What a newer release has written is left alone.
local MOST_QUEUES = 64
local MOST_BYTES = 1048576
local FIRST_PAGE = 16
local limit = tonumber(ARGV[2])

local function first_due()
  return redis.call('ZRANGEBYSCORE', K_DUE, '-inf', NOW, 'WITHSCORES', 'LIMIT', 0, 1)[2] or ''
end

if limit == 0 then return {0, first_due(), 0} end

-- Sorted sets that have something due, as a heap by when their next member is.
local heap = {}

local function sift_down(at)
  local source = heap[at]
  while 2 * at <= #heap do
    local child = 2 * at
    if child < #heap and heap[child + 1].due < heap[child].due then child = child + 1 end
    if heap[child].due >= source.due then break end
    heap[at] = heap[child]
    at = child
  end
  heap[at] = source
end

local function push(source)
  local at = #heap + 1
  while at > 1 do
    local parent = math.floor(at / 2)
    if heap[parent].due <= source.due then break end
    heap[at] = heap[parent]
    at = parent
  end
  heap[at] = source
end

-- The next member of a sorted set, read a page at a time; false at the end of what is due.
local function advance(source)
  source.at = source.at + 2
  if source.at > #source.page then
    if #source.page < 2 * source.size then return false end
    source.offset = source.offset + source.size
    if source.at > 1 then source.size = 2 * source.size end
    source.page = redis.call('ZRANGEBYSCORE', source.zset, '-inf', NOW, 'WITHSCORES', 'LIMIT', source.offset, source.size)
    source.at = 1
    if #source.page == 0 then return false end
  end
  source.member = source.page[source.at]
  source.due = tonumber(source.page[source.at + 1])
  return true
end

local function open(code)
  local zset = zset_of(code)
  local page = redis.call('ZRANGEBYSCORE', zset, '-inf', NOW, 'WITHSCORES', 'LIMIT', 0, FIRST_PAGE)
  local source = {code = code, zset = zset, page = page, size = FIRST_PAGE, offset = 0, at = -1, gone = {}}
  if #page > 0 and advance(source) then push(source) end
end

local is_stream = {}

-- Somebody may have put something else in the place of a stream: then its jobs stay where they are.
local function takes(code)
  if is_stream[code] == nil then
    local kind = redis.call('TYPE', stream_of(code)).ok
    is_stream[code] = kind == 'stream' or kind == 'none'
  end
  return is_stream[code]
end

local chosen, codes, values, odd, sources = {}, {}, {}, {}, {}

-- A value has the id of its job at a fixed place: what is cut off before it, or is of another job, is not made ready.
local function is_value_of(id, record, at)
  return string.sub(record, at + 15, at + 50) == id
end

-- Choose the next member of `source`, or see that it is no delayed job.
local function choose(source)
  local member = source.member
  local record = redis.call('GET', K_JOB .. member)
  local format = record and string.byte(record) or 0
  if format > 1 and format < 32 then return end
  local space = record and string.find(record, ' ', 3, true)
  local code = space and string.sub(record, 3, space - 1)
  local is_delayed = code and string.sub(record, 1, 2) == '\1d' and string.match(code, '^[dt][0-3]%S+$') and zset_of(code) == source.zset
  if is_delayed and is_value_of(member, record, space + 1) then
    local value = string.sub(record, space + 1)
    local ready = place_of(value, 's' .. string.sub(code, 2))
    if takes(ready) then
      local n = #chosen + 1
      chosen[n], codes[n], values[n] = member, ready, value
      sources[source] = true
      source.gone[#source.gone + 1] = member
    end
  else
    odd[#odd + 1] = {source.code, member, record}
  end
end

local heads = redis.call('ZRANGEBYSCORE', K_DUE, '-inf', NOW, 'WITHSCORES', 'LIMIT', 0, MOST_QUEUES + 1)
local opened, looked, bytes = 0, 0, 0
while looked < limit do
  -- A queue may have nothing before its time in `due`: it is opened when its turn may have come.
  local head = tonumber(heads[2 * opened + 2])
  if head and (not heap[1] or head < heap[1].due) then
    if opened == MOST_QUEUES then break end
    local queue = heads[2 * opened + 1]
    opened = opened + 1
    open('d2' .. queue)
    open('t2' .. queue)
  else
    local source = heap[1]
    if not source then break end
    bytes = bytes + redis.call('STRLEN', K_JOB .. source.member)
    if bytes > MOST_BYTES and looked > 0 then break end
    looked = looked + 1
    choose(source)
    if advance(source) then
      sift_down(1)
    else
      local last = table.remove(heap)
      if last ~= source then
        heap[1] = last
        sift_down(1)
      end
    end
  end
end

-- First what frees memory, for a full server refuses a script whose first write takes some.
for source in pairs(sources) do redis.call('ZREM', source.zset, unpack(source.gone)) end
local written, places = {}, {}
for n, id in ipairs(chosen) do
  local code = codes[n]
  local entry = redis.call('XADD', stream_of(code), '*', '1', values[n])
  written[2 * n - 1], written[2 * n] = K_JOB .. id, '\1w' .. code .. ' ' .. entry
  places[code] = true
end
if #written > 0 then redis.call('MSET', unpack(written)) end
for code in pairs(places) do ring_for(code) end

local changed = #chosen > 0 and 1 or 0
for n = 1, opened do
  local queue = heads[2 * n - 1]
  local scheduled = redis.call('ZRANGE', K_DELAYED .. queue, 0, 0, 'WITHSCORES')[2]
  local retrying = redis.call('ZRANGE', K_RETRY .. queue, 0, 0, 'WITHSCORES')[2]
  local first = scheduled
  if retrying and (not first or tonumber(retrying) < tonumber(first)) then first = retrying end
  if first ~= heads[2 * n] then
    changed = 1
    if first then redis.call('ZADD', K_DUE, first, queue) else redis.call('ZREM', K_DUE, queue) end
  end
end

local answer = {#chosen, first_due(), changed}
for _, one in ipairs(odd) do
  for n = 1, 3 do answer[#answer + 1] = one[n] or false end
end
return answer
