-- Claims jobs that a message names, and finds what a process has claimed. Both give the fields of a `Claim` in its order.
--
-- Guard of the claim: the job is queued, due, not paused, and was started before or has not expired. Every other job is a
-- duplicate, stale or cancelled, and nothing of it changes. The line that ends with `-- paused` is left out where nothing is.
-- `attempt` grows with each claim and is the fence of every later write.
-- It is put in a way that leaves the planner one choice, the primary key: a plan that was made while the table was empty is kept.
-- Locks: the rows of the jobs that are claimed. A ticket's claim is in `webapp/queues/sql/head.sql`; a test compares the two.

-- name: claim
UPDATE jobs_living
   SET status = 'processing', attempt = attempt + 1, worker_id = :worker_id, last_attempt_at = now(), updated_at = now(),
       lease_expires_at = now() + make_interval(secs => :lease), progress = NULL, ended_by = NULL
 WHERE id = ANY(CAST(:ids AS uuid[])) AND (status = 'queued') IS TRUE AND run_at <= now()
   AND (expires_at IS NULL OR expires_at > now() OR attempt > 0)
   AND queue <> ALL(:closed_queues) AND task <> ALL(:closed_tasks)                                                  -- paused
RETURNING id, task, coalesce(payload_as_sent, CAST(payload AS json)) AS payload, queue, attempt, retry_count, max_retries,
          timeout, worker_id, extract(epoch FROM now() - run_at)::float8 AS waited, request_id, backoff, traceparent,
          callback_of, group_id;

-- name: claimed_by
-- What a process holds and has not ended, the most urgent first. Locks nothing: no other process writes to it meanwhile.
SELECT id, task, coalesce(payload_as_sent, CAST(payload AS json)) AS payload, queue, attempt, retry_count, max_retries,
       timeout, worker_id, extract(epoch FROM now() - run_at)::float8 AS waited, request_id, backoff, traceparent,
       callback_of, group_id
  FROM jobs_living
 WHERE status = 'processing' AND worker_id = :worker_id AND (
       SELECT ended.attempt FROM job_attempts AS ended
        WHERE ended.job_id = jobs_living.id AND ended.attempt = jobs_living.attempt) IS NULL
 ORDER BY priority DESC, run_at;
