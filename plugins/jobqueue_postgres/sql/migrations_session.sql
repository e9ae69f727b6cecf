-- The same for a session outside transactions, where a CREATE INDEX CONCURRENTLY waits for all who began before it, and keeps nobody waiting.
SELECT
    set_config('search_path', %(search_path)s, false), set_config('statement_timeout', '0', false), set_config('lock_timeout', '0', false),
    set_config('client_min_messages', 'warning', false),
    set_config('TimeZone', 'UTC', false), set_config('DateStyle', 'ISO', false)
