-- How long a statement may take and where our tables are: for this transaction (:local) or for the session.
SELECT
    set_config('statement_timeout', %(timeout)s, %(local)s),
    set_config('TimeZone', 'UTC', %(local)s),
    set_config('DateStyle', 'ISO', %(local)s),
    set_config('IntervalStyle', 'postgres', %(local)s),
    set_config('search_path', coalesce(nullif(%(search_path)s, ''), current_setting('search_path')), %(local)s)
