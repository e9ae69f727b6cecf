-- Move one of the database's numbers; answers its new value.
UPDATE numbers SET value = value + :by WHERE name = :name RETURNING value
