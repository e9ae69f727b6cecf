-- How many dead letters match, from the counters that triggers keep.
SELECT coalesce(sum(kind.count), 0)::bigint FROM dead_letter_counts AS kind WHERE kind.state = ANY (%(states)s::text[]) AND /*filter*/
