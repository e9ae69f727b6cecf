-- Which of :ids (JSON array of [finished_us, id]) have been stored or counted before.
SELECT json_extract(wanted.value, '$[1]')
FROM json_each(:ids) AS wanted
WHERE EXISTS (
    SELECT 1 FROM executions
    WHERE finished_us = json_extract(wanted.value, '$[0]') AND id = json_extract(wanted.value, '$[1]')
) OR EXISTS (SELECT 1 FROM counted WHERE id = json_extract(wanted.value, '$[1]'))
