-- Who holds a key.
SELECT job_id, until_us FROM unique_keys WHERE queue = :queue AND key = :key
