-- Dead letters by fingerprint, largest group first; the example (bare column) comes from the row of the maximum.
SELECT fingerprint, type, count(*), max(died_us), job_id, death FROM dead_letters
WHERE /*filter*/
GROUP BY fingerprint
ORDER BY count(*) DESC, fingerprint
LIMIT :limit
