-- Cancels jobs that wait, and asks attempts that run to stop.
--
-- Guard: a job that is queued, or whose newest attempt has no end on record. One that is final, or whose last attempt has failed
-- and waits to be moved to the dead letter queue, is left as it is.
-- Locks: the job's row; an attempt's end that is being written meanwhile is waited for by `lock`, and seen by `ask`.

-- name: lock
SELECT FROM jobs_living WHERE id = :id AND status IN ('queued', 'processing') FOR NO KEY UPDATE;

-- name: ask
-- The first reason that was given stays. `is_new`: this is the first time that it is asked.
UPDATE jobs
   SET status = CASE status WHEN 'queued' THEN 'cancelled' ELSE status END,
       finished_at = CASE status WHEN 'queued' THEN now() END,
       cancel_requested_at = CASE status WHEN 'processing' THEN coalesce(cancel_requested_at, now()) END,
       cancel_reason = CASE WHEN cancel_requested_at IS NULL THEN :reason ELSE cancel_reason END,
       updated_at = now()
 WHERE id = :id AND finished_at IS NULL AND (status = 'queued' OR (status = 'processing' AND NOT EXISTS (
       SELECT FROM job_attempts AS ended WHERE ended.job_id = jobs.id AND ended.attempt = jobs.attempt)))
RETURNING status, lane, coalesce(cancel_requested_at = now(), true) AS is_new;

-- name: kill
-- Dates the cancellation of a running job back, so that its worker does not wait for it.
UPDATE jobs_living SET cancel_requested_at = now() - make_interval(secs => :seconds)
 WHERE id = :id AND status = 'processing' AND cancel_requested_at IS NOT NULL;

-- name: is_asked
-- No row: it is not this attempt's job any more.
SELECT cancel_requested_at IS NOT NULL FROM jobs_living WHERE id = :id AND status = 'processing' AND attempt = :attempt;

-- name: lock_overdue
-- Jobs of one worker that were asked to stop more than `grace` seconds ago and still run.
SELECT id FROM jobs_living
 WHERE status = 'processing' AND cancel_requested_at < now() - make_interval(secs => :grace)
   AND starts_with(worker_id, :family) AND NOT EXISTS (
       SELECT FROM job_attempts AS ended WHERE ended.job_id = jobs_living.id AND ended.attempt = jobs_living.attempt)
   FOR NO KEY UPDATE SKIP LOCKED;

-- name: holders_of
-- Which processes run these jobs: an end that was recorded while `lock_overdue` ran is seen here.
SELECT DISTINCT worker_id FROM jobs_living
 WHERE id = ANY(CAST(:ids AS uuid[])) AND status = 'processing' AND NOT EXISTS (
       SELECT FROM job_attempts AS ended WHERE ended.job_id = jobs_living.id AND ended.attempt = jobs_living.attempt);
