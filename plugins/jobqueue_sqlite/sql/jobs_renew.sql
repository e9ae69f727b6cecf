-- Hold a lease for longer. Answers the job's cancel_requested, or no row when the lease is lost.
UPDATE jobs SET lease_until_us = :lease_until_us, lease_us = :lease_us
WHERE number = :number AND lease_no = :lease_no
RETURNING cancel_requested
