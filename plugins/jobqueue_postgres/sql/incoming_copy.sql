-- Bring executions to the server. The order of the fields is that of incoming.py.
COPY pg_temp.incoming_executions FROM STDIN (FORMAT BINARY)
