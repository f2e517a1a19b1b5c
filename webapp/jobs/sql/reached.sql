-- Of these jobs those that there are, and whether each is of one of these queues, so that a caller who reaches only those is not told of
-- others. Reads primary keys; locks nothing.
SELECT id, queue = ANY(CAST(:queues AS text[])) FROM jobs WHERE id = ANY(CAST(:ids AS uuid[]));
