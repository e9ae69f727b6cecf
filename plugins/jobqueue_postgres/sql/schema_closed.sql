-- The schema that our search path begins with, if it is there and our role may not use it: it then looks as if it were empty.
SELECT nspname::text FROM pg_namespace
WHERE nspname = substring(current_setting('search_path') FROM '^"([^"]+)"') AND NOT has_schema_privilege(oid, 'USAGE')
