-- How many dead letters of each fingerprint match when a time is wanted, counted along an index.
SELECT letter.fingerprint, count(*) FROM dead_letter_queue AS letter
WHERE letter.state = ANY (%(states)s::text[]) AND /*filter*/
GROUP BY letter.fingerprint
