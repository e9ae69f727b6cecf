-- The kinds of dead letters that match, and how many there are of each, from the counters that triggers keep.
SELECT kind.state, kind.fingerprint, kind.type, kind.queue, kind.count
FROM dead_letter_counts AS kind
WHERE kind.state = ANY (%(states)s::text[]) AND kind.count > 0 AND /*filter*/
