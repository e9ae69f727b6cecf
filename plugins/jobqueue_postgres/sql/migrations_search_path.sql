-- Work in one schema until the transaction ends. Migrations take as long as they take, but wait only so long for others who use a table.
SELECT
    set_config('search_path', %(search_path)s, true), set_config('statement_timeout', '0', true), set_config('lock_timeout', '10s', true),
    set_config('client_min_messages', 'warning', true)
