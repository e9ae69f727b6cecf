-- The same for the session.
SELECT
    set_config('search_path', %(search_path)s, false), set_config('statement_timeout', '0', false), set_config('lock_timeout', '10s', false),
    set_config('client_min_messages', 'warning', false)
