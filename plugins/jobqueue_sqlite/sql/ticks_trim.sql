-- Keep the latest :keep ticks of a schedule, and every one that was not sent.
DELETE FROM ticks
WHERE schedule = :schedule AND sent = 1
    AND due_us < (SELECT due_us FROM ticks WHERE schedule = :schedule ORDER BY due_us DESC LIMIT 1 OFFSET :keep - 1)
