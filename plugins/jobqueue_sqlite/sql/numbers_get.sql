-- One of the database's numbers.
SELECT value FROM numbers WHERE name = :name
