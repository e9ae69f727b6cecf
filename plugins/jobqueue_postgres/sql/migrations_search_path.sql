-- Work in one schema until the transaction ends. Migrations take as long as they take, but wait only so long for others who use a table.
SELECT set_config(name, value, true)
FROM (VALUES
    ('search_path', %(search_path)s), ('lock_timeout', '10s'), ('client_min_messages', 'warning'),
    ('TimeZone', 'UTC'), ('DateStyle', 'ISO'),
    ('statement_timeout', '0'), ('idle_in_transaction_session_timeout', '0'), ('transaction_timeout', '0')
) AS wanted (name, value)
WHERE current_setting(name, true) IS NOT NULL  -- some are newer than the server
