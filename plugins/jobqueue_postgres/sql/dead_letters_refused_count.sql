-- How many dead letters were refused, and why the latest.
SELECT count(*)::integer, (array_agg(problem ORDER BY died_at DESC))[1] FROM dead_letters_refused
