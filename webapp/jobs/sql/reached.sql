-- Of these jobs those that there are, and whether each is within reach of a caller who does not reach everything, so that they are not told
-- of others. Reads primary keys; locks nothing.
SELECT id, true
           AND queue = ANY(CAST(:queues AS text[]))  -- reach
           AND tenant_id = :tenant  -- tenant
           AND tenant_id <= :tenant  -- default tenant
  FROM jobs WHERE id = ANY(CAST(:ids AS uuid[]));
