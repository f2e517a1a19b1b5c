-- Leases: prolongs them, and takes over the jobs of processes that are gone.
--
-- Guard of `renew`: the job is processing in the hands of one of these processes.
-- Locks: `renew` the rows of its jobs; `take_expired` and `take_held_by` those that no other session has locked. Who takes jobs over
-- ends their attempts in the same transaction (end_attempts.sql).

-- name: renew
UPDATE jobs_living SET lease_expires_at = now() + make_interval(secs => :lease)
 WHERE id = ANY(CAST(:ids AS uuid[])) AND status = 'processing' AND worker_id = ANY(:workers)
RETURNING id;

-- name: holders
-- The processes of one worker that hold a job; their ids begin with `family`.
SELECT DISTINCT worker_id FROM jobs_living WHERE status = 'processing' AND starts_with(worker_id, :family);

-- name: take_expired
-- The jobs of processes with a lease that ran out, all of a process at once: how many it held is part of what is decided.
SELECT j.id, j.task, j.queue, j.attempt, j.retry_count, j.max_retries, j.worker_id, a.job_id IS NOT NULL AS recorded,
       j.request_id, j.traceparent, j.backoff,
       (SELECT count(*)::int FROM job_attempts AS before
         WHERE before.job_id = j.id AND before.error_type = :spared) AS spared
  FROM jobs_living j LEFT JOIN job_attempts a ON a.job_id = ANY(ARRAY[j.id]) AND a.attempt = j.attempt
 WHERE j.status = 'processing' AND j.lease_expires_at < now() AND j.worker_id IN (
       SELECT worker_id FROM jobs_living WHERE status = 'processing' AND lease_expires_at < now()
        ORDER BY lease_expires_at LIMIT :limit)
   FOR UPDATE OF j SKIP LOCKED;

-- name: take_held_by
-- The jobs of processes that are known to be dead.
SELECT j.id, j.task, j.queue, j.attempt, j.retry_count, j.max_retries, j.worker_id, a.job_id IS NOT NULL AS recorded,
       j.request_id, j.traceparent, j.backoff,
       (SELECT count(*)::int FROM job_attempts AS before
         WHERE before.job_id = j.id AND before.error_type = :spared) AS spared
  FROM jobs_living j LEFT JOIN job_attempts a ON a.job_id = ANY(ARRAY[j.id]) AND a.attempt = j.attempt
 WHERE j.status = 'processing' AND j.worker_id = ANY(:workers)
   FOR UPDATE OF j SKIP LOCKED;

-- name: seconds_since_start
-- How long this PostgreSQL has been up.
SELECT extract(epoch FROM now() - pg_postmaster_start_time())::float8;
