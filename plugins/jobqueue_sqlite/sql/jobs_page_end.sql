-- The last id that a page may examine; no row when the list ends before.
SELECT id FROM jobs WHERE id < :before ORDER BY id DESC LIMIT 1 OFFSET :examined - 1
