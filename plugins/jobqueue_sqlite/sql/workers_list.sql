-- The workers that have said they live since :since_us.
SELECT beat_us, record FROM workers WHERE beat_us > :since_us
