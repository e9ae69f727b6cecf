-- A full Redis refuses a script whose first write needs memory. After any write that needs none it takes all: for steps that must go on then.
local function unlock_memory()
  redis.call('DEL', P .. 'nothing')
end
