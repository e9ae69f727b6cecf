-- The schema in which the connection makes tables.
SELECT current_schema()
