-- The version of each row, of a job or of a group: another than before says that it has changed. Reads primary keys; locks nothing.
SELECT CAST(id AS text), CAST(xmin AS text) FROM jobs WHERE id = ANY(CAST(:ids AS uuid[]))
   AND (finished_at IS NULL OR finished_at >= :since)
 UNION ALL
SELECT CAST(id AS text), CAST(xmin AS text) FROM groups WHERE id = ANY(CAST(:ids AS uuid[]));
