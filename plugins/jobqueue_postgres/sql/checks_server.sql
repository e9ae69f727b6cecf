-- What the server is and how it is set, and who we are to it.
SELECT
    current_setting('server_version'),
    current_user::text,
    (SELECT rolsuper FROM pg_roles WHERE rolname = current_user),
    coalesce((SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()), false),
    inet_client_addr() IS NULL OR inet_client_addr() <<= inet '127.0.0.0/8' OR inet_client_addr() = inet '::1',
    current_setting('fsync')::boolean,
    current_setting('synchronous_commit'),
    current_setting('max_connections')::integer,
    (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend')::integer,
    pg_is_in_recovery(),
    pg_backend_pid()
