-- The version of each job's row: another than before says that the job has changed. Reads the primary key; locks nothing.
SELECT CAST(id AS text), CAST(xmin AS text) FROM jobs WHERE id = ANY(CAST(:ids AS uuid[]))
   AND (finished_at IS NULL OR finished_at >= :since);
