-- How many dead letters match, counted along an index.
SELECT count(*) FROM dead_letter_queue AS letter WHERE letter.state = ANY (%(states)s::text[]) AND /*filter*/
