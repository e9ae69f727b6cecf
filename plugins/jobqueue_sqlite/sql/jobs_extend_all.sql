-- After a jump of the clock: every lease runs for its whole length from now.
UPDATE jobs SET lease_until_us = :now_us + lease_us WHERE lease_until_us IS NOT NULL
