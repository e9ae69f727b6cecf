-- Jobs as they are now.
-- use: look
-- ARGV: prefix, job id...
-- Answer: of each what `look` tells.
local found = {}
for i = 2, #ARGV do found[i - 1] = look(ARGV[i]) end
return found
