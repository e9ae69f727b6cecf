-- Forget dead letters of one state that died before :before_us.
DELETE FROM dead_letters
WHERE number IN (SELECT number FROM dead_letters WHERE state = :state AND died_us < :before_us ORDER BY died_us LIMIT :limit)
