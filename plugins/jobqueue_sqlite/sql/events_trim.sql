-- Cap the log.
DELETE FROM events WHERE number <= :last
