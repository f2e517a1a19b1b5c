-- The dead letter queue: finds dead letters, groups them, and deals with those that match.
--
-- All statements match by the same conditions, of which a NULL stands for "any": the values are in the text that PostgreSQL
-- plans, so a condition without a value is no condition, and the indexes of open dead letters are found. A test compares them.
--
-- Guard of `take` and `discard`: the dead letter is open, and its job has failed. A dead letter that somebody dealt with is
-- never changed again.
-- Locks: the rows of jobs, then those of dead letters, in the order of dead letters' ids. What another session has locked is
-- left out, so two who do the same at the same time share the work and never wait for each other.

-- name: page
-- Dead letters from the newest on; `before` is the id of the last one of the page before.
SELECT d.id, d.job_id, d.task, d.queue, d.reason, d.error_type, d.error_message, d.fingerprint, d.dead_at, d.requeued_at,
       d.discarded_at, d.resolved_by, d.resolved_why
  FROM dead_letters d
 WHERE CASE CAST(:state AS text)
       WHEN 'open' THEN d.requeued_at IS NULL AND d.discarded_at IS NULL
       WHEN 'requeued' THEN d.requeued_at IS NOT NULL
       WHEN 'discarded' THEN d.discarded_at IS NOT NULL
       ELSE true END
   AND (CAST(:task AS text) IS NULL OR d.task = :task)
   AND (CAST(:queue AS text) IS NULL OR d.queue = :queue)
   AND d.queue = ANY(CAST(:queues AS text[]))  -- reach
   AND d.tenant_id = :tenant AND d.tenant_id <> 1  -- tenant
   AND d.tenant_id <= :tenant  -- default tenant
   AND (CAST(:reason AS text) IS NULL OR d.reason = :reason)
   AND (CAST(:error_type AS text) IS NULL OR d.error_type = :error_type)
   AND (CAST(:fingerprint AS text) IS NULL OR d.fingerprint = :fingerprint)
   AND (CAST(:dead_after AS timestamptz) IS NULL OR d.dead_at >= :dead_after)
   AND (CAST(:dead_before AS timestamptz) IS NULL OR d.dead_at < :dead_before)
   AND (CAST(:ids AS uuid[]) IS NULL OR d.job_id = ANY(CAST(:ids AS uuid[])))
   AND (CAST(:before AS bigint) IS NULL OR d.id < :before)
 ORDER BY d.id DESC LIMIT :limit;

-- name: count
SELECT count(*)
  FROM dead_letters d
 WHERE CASE CAST(:state AS text)
       WHEN 'open' THEN d.requeued_at IS NULL AND d.discarded_at IS NULL
       WHEN 'requeued' THEN d.requeued_at IS NOT NULL
       WHEN 'discarded' THEN d.discarded_at IS NOT NULL
       ELSE true END
   AND (CAST(:task AS text) IS NULL OR d.task = :task)
   AND (CAST(:queue AS text) IS NULL OR d.queue = :queue)
   AND d.queue = ANY(CAST(:queues AS text[]))  -- reach
   AND d.tenant_id = :tenant AND d.tenant_id <> 1  -- tenant
   AND d.tenant_id <= :tenant  -- default tenant
   AND (CAST(:reason AS text) IS NULL OR d.reason = :reason)
   AND (CAST(:error_type AS text) IS NULL OR d.error_type = :error_type)
   AND (CAST(:fingerprint AS text) IS NULL OR d.fingerprint = :fingerprint)
   AND (CAST(:dead_after AS timestamptz) IS NULL OR d.dead_at >= :dead_after)
   AND (CAST(:dead_before AS timestamptz) IS NULL OR d.dead_at < :dead_before)
   AND (CAST(:ids AS uuid[]) IS NULL OR d.job_id = ANY(CAST(:ids AS uuid[])));

-- name: jobs
-- The jobs of open dead letters, from the newest dead letter on; when each died, and what time it is.
SELECT d.job_id, d.dead_at, now()
  FROM dead_letters d
 WHERE d.requeued_at IS NULL AND d.discarded_at IS NULL
   AND (CAST(:task AS text) IS NULL OR d.task = :task)
   AND (CAST(:queue AS text) IS NULL OR d.queue = :queue)
   AND d.queue = ANY(CAST(:queues AS text[]))  -- reach
   AND d.tenant_id = :tenant AND d.tenant_id <> 1  -- tenant
   AND d.tenant_id <= :tenant  -- default tenant
   AND (CAST(:reason AS text) IS NULL OR d.reason = :reason)
   AND (CAST(:error_type AS text) IS NULL OR d.error_type = :error_type)
   AND (CAST(:fingerprint AS text) IS NULL OR d.fingerprint = :fingerprint)
   AND (CAST(:dead_after AS timestamptz) IS NULL OR d.dead_at >= :dead_after)
   AND (CAST(:dead_before AS timestamptz) IS NULL OR d.dead_at < :dead_before)
   AND (CAST(:ids AS uuid[]) IS NULL OR d.job_id = ANY(CAST(:ids AS uuid[])))
 ORDER BY d.id DESC LIMIT :limit OFFSET :offset;

-- name: groups
-- Those that died of the same, the largest group first, with the newest of each as a sample.
WITH alike AS (
    SELECT d.task, d.queue, d.error_type, d.fingerprint, count(*) AS count, min(d.dead_at) AS first,
           max(d.dead_at) AS last, max(d.id) AS newest
      FROM dead_letters d
     WHERE CASE CAST(:state AS text)
           WHEN 'open' THEN d.requeued_at IS NULL AND d.discarded_at IS NULL
           WHEN 'requeued' THEN d.requeued_at IS NOT NULL
           WHEN 'discarded' THEN d.discarded_at IS NOT NULL
           ELSE true END
       AND (CAST(:task AS text) IS NULL OR d.task = :task)
       AND (CAST(:queue AS text) IS NULL OR d.queue = :queue)
       AND d.queue = ANY(CAST(:queues AS text[]))  -- reach
       AND d.tenant_id = :tenant AND d.tenant_id <> 1  -- tenant
       AND d.tenant_id <= :tenant  -- default tenant
       AND (CAST(:reason AS text) IS NULL OR d.reason = :reason)
       AND (CAST(:error_type AS text) IS NULL OR d.error_type = :error_type)
       AND (CAST(:fingerprint AS text) IS NULL OR d.fingerprint = :fingerprint)
       AND (CAST(:dead_after AS timestamptz) IS NULL OR d.dead_at >= :dead_after)
       AND (CAST(:dead_before AS timestamptz) IS NULL OR d.dead_at < :dead_before)
       AND (CAST(:ids AS uuid[]) IS NULL OR d.job_id = ANY(CAST(:ids AS uuid[])))
     GROUP BY 1, 2, 3, 4 ORDER BY count(*) DESC, max(d.id) DESC LIMIT :limit)
SELECT alike.task, alike.queue, alike.error_type, alike.fingerprint, alike.count, alike.first, alike.last,
       newest.job_id, newest.error_message, ended.traceback
  FROM alike
  JOIN dead_letters AS newest ON newest.id = alike.newest
  LEFT JOIN LATERAL (SELECT traceback FROM job_attempts WHERE job_id = newest.job_id
                        AND ended_at <= newest.dead_at ORDER BY attempt DESC LIMIT 1) AS ended ON true
 ORDER BY alike.count DESC, alike.newest DESC;

-- name: take
-- Locks the oldest ones that are open, and gives their jobs, which ended when their dead letter was written: what becomes of them is
-- said in the same transaction. The state is asked for in a way that no index answers: by statistics of a day that has just begun
-- each letter would look at all jobs that failed.
SELECT d.job_id, j.finished_at
  FROM dead_letters d JOIN jobs j ON j.id = d.job_id
   AND j.finished_at BETWEEN d.dead_at - interval '1 day' AND d.dead_at + interval '1 day'
 WHERE d.requeued_at IS NULL AND d.discarded_at IS NULL
   AND (CAST(:task AS text) IS NULL OR d.task = :task)
   AND (CAST(:queue AS text) IS NULL OR d.queue = :queue)
   AND d.queue = ANY(CAST(:queues AS text[]))  -- reach
   AND d.tenant_id = :tenant AND d.tenant_id <> 1  -- tenant
   AND d.tenant_id <= :tenant  -- default tenant
   AND (CAST(:reason AS text) IS NULL OR d.reason = :reason)
   AND (CAST(:error_type AS text) IS NULL OR d.error_type = :error_type)
   AND (CAST(:fingerprint AS text) IS NULL OR d.fingerprint = :fingerprint)
   AND (CAST(:dead_after AS timestamptz) IS NULL OR d.dead_at >= :dead_after)
   AND (CAST(:dead_before AS timestamptz) IS NULL OR d.dead_at < :dead_before)
   AND (CAST(:ids AS uuid[]) IS NULL OR d.job_id = ANY(CAST(:ids AS uuid[])))
   AND (j.status = 'failed') IS TRUE
 ORDER BY d.id LIMIT :limit FOR UPDATE OF j, d SKIP LOCKED;

-- name: discard
-- Puts aside what `take` has locked: the jobs stay failed.
UPDATE dead_letters SET discarded_at = now(), resolved_by = :by, resolved_why = :why
 WHERE job_id = ANY(CAST(:ids AS uuid[])) AND requeued_at IS NULL AND discarded_at IS NULL;
