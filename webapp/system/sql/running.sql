-- What jobs are that workers say they run. Primary key of those that live; locks nothing.
SELECT id, task, queue FROM jobs_living WHERE id = ANY(CAST(:ids AS uuid[]));
