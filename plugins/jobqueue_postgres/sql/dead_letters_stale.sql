-- Dead letters whose retry began before :before and was not finished.
SELECT /*columns*/ FROM dead_letter_queue AS letter
WHERE state = 'requeueing' AND requeueing_at < %(before)s
ORDER BY requeueing_at
LIMIT %(limit)s
