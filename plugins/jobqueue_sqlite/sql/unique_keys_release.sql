-- Release a key at its job's end, unless unique_for holds it longer or it has become another's.
DELETE FROM unique_keys WHERE queue = :queue AND key = :key AND job_id = :job_id AND (until_us IS NULL OR until_us <= :now_us)
