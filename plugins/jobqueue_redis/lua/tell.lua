-- Tell those who listen what has happened beside the jobs.
-- use: send
-- ARGV: prefix, event
send_event(ARGV[2], {})
return 1
