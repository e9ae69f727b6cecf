-- How many dead letters of each fingerprint match, from the counters that triggers keep.
SELECT letter.fingerprint, sum(letter.count) AS size FROM dead_letter_counts AS letter
WHERE letter.state = ANY (%(states)s::text[]) AND /*filter*/
GROUP BY letter.fingerprint HAVING sum(letter.count) > 0
