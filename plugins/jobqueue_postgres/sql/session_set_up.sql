-- How long a statement may take and where our tables are: for this transaction (:local) or for the session. Whoever freezes between two statements
-- of a transaction is cut off, so that what it has locked can be used again.
SELECT
    set_config('statement_timeout', %(timeout)s, %(local)s),
    set_config('idle_in_transaction_session_timeout', '10s', %(local)s),
    set_config('TimeZone', 'UTC', %(local)s),
    set_config('DateStyle', 'ISO', %(local)s),
    set_config('IntervalStyle', 'postgres', %(local)s),
    set_config('search_path', coalesce(nullif(%(search_path)s, ''), current_setting('search_path')), %(local)s)
