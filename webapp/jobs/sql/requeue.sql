-- Queues a failed or cancelled job again with a fresh budget of retries.
--
-- Guard: the job is failed or cancelled. Its attempt is kept: it is the fence, so what earlier attempts write late still changes
-- nothing.
-- Locks: the job's row, then its dead letter.

-- name: requeue
UPDATE jobs
   SET status = 'queued', run_at = now(), dispatched_at = NULL, retry_count = 0, last_error = NULL,
       finished_at = NULL, cancel_requested_at = NULL, cancel_reason = NULL, callback_job_id = NULL,
       updated_at = now(), expires_at = CASE WHEN expires_at > now() THEN expires_at END
 WHERE id = :id AND status IN ('failed', 'cancelled');

-- name: close_dead_letter
-- A statement of its own: after a wait for the job's row it also sees the dead letter that the other session wrote.
UPDATE dead_letters SET requeued_at = now()
 WHERE job_id = :id AND requeued_at IS NULL AND discarded_at IS NULL;
