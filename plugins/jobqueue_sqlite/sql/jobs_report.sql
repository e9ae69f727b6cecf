-- Store the progress of a running job (null leaves it). No row is answered when the lease is lost.
UPDATE jobs SET progress = coalesce(:progress, progress) WHERE number = :number AND lease_no = :lease_no RETURNING id
