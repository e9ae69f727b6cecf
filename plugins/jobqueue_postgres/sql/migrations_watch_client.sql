-- Look each second whether the client lives: for this transaction (:local) or for the session. Not every platform can.
SELECT set_config('client_connection_check_interval', '1s', %(local)s)
