-- When the first of a group died.
SELECT min(died_us) FROM dead_letters WHERE /*filter*/
