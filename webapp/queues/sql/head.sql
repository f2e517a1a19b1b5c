-- The head of a queue: the first jobs that are due and were never sent, the most urgent first. Looks at it, sends it, claims it.
--
-- Guard: each job is queued, undispatched, due, and was started before or has not expired.
-- Locks: `look` none; the others the rows of the head, in its order, those that another session has locked left out: any number
-- of dispatchers and workers do this at once, and none waits for another.
-- `id = ANY(ARRAY[head_id])` and not `id = head_id`: see webapp/jobs/sql/end_attempts.sql.
-- The head is the same text in all of them, and what `claim` writes and answers is as in `webapp/jobs/sql/claim.sql`; a test
-- compares them.

-- name: look
-- What is due, by task.
WITH head AS (
    SELECT id AS head_id, task AS head_task, timeout AS head_timeout, priority AS head_priority
      FROM jobs_living
     WHERE queue = :queue AND status = 'queued' AND dispatched_at IS NULL AND run_at <= now()
       AND (expires_at IS NULL OR expires_at > now() OR attempt > 0)
     ORDER BY priority DESC, run_at
     LIMIT :limit)
SELECT head_task, count(*), max(head_timeout), max(head_priority) FROM head GROUP BY head_task;

-- name: take
-- Marks what is due as dispatched, except jobs of the tasks in `besides`.
WITH head AS (
    SELECT id AS head_id, task AS head_task, timeout AS head_timeout, priority AS head_priority
      FROM jobs_living
     WHERE queue = :queue AND status = 'queued' AND dispatched_at IS NULL AND run_at <= now()
       AND (expires_at IS NULL OR expires_at > now() OR attempt > 0)
     ORDER BY priority DESC, run_at
     LIMIT :limit
       FOR UPDATE SKIP LOCKED)
UPDATE jobs_living SET dispatched_at = now() FROM head WHERE id = ANY(ARRAY[head_id]) AND head_task <> ALL(:besides)
RETURNING id, task, queue, timeout, priority, run_at;

-- name: claim
-- Claims the jobs of one task that take no longer than `timeout` among what is due; gives each with its priority.
WITH head AS (
    SELECT id AS head_id, task AS head_task, timeout AS head_timeout, priority AS head_priority
      FROM jobs_living
     WHERE queue = :queue AND status = 'queued' AND dispatched_at IS NULL AND run_at <= now()
       AND (expires_at IS NULL OR expires_at > now() OR attempt > 0)
     ORDER BY priority DESC, run_at
     LIMIT :limit
       FOR UPDATE SKIP LOCKED),
claimed AS (
    UPDATE jobs_living
       SET status = 'processing', attempt = attempt + 1, worker_id = :worker_id, last_attempt_at = now(), updated_at = now(),
           lease_expires_at = now() + make_interval(secs => :lease), progress = NULL, ended_by = NULL
      FROM head WHERE id = ANY(ARRAY[head_id]) AND head_task = :task AND head_timeout <= :timeout
    RETURNING priority, id, task, coalesce(payload_as_sent, CAST(payload AS json)) AS payload, queue, attempt, retry_count,
              max_retries, timeout, worker_id, extract(epoch FROM now() - run_at)::float8 AS waited, request_id, backoff,
              traceparent, callback_of, group_id)
SELECT * FROM claimed;
