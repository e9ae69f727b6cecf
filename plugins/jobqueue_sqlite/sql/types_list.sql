-- The types served since :since_us, by name.
SELECT seen_us, record FROM types WHERE seen_us > :since_us ORDER BY type
