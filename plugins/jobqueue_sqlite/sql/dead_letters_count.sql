-- How many dead letters match. /*filter*/ as in dead_letters_list.
SELECT count(*) FROM dead_letters WHERE /*filter*/
