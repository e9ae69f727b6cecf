-- How many dead letters match, from the counters that triggers keep.
SELECT coalesce(sum(letter.count), 0) FROM dead_letter_counts AS letter WHERE letter.state = ANY (%(states)s::text[]) AND /*filter*/
