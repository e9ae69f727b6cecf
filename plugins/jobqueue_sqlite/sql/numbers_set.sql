-- Set one of the database's numbers.
UPDATE numbers SET value = :value WHERE name = :name
