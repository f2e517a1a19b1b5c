-- Queues failed or cancelled jobs again with a fresh budget of retries, whether one is asked for or many dead letters are.
--
-- Guard: the job is failed or cancelled. Its attempt is kept: it is the fence, so what earlier attempts write late still changes
-- nothing.
-- Locks: the rows of the jobs, then their dead letters.

-- name: requeue
-- Each is filed into its lane anew, if it is under a limit by now, and is the last one of its key: `attempts_before` tells it from one
-- that was begun.
-- In the order that is given, `gap` seconds apart from `first` on; NULL: from now on. None of them ended before `since`: of history
-- only what came later is looked through, and that by the primary keys: no index is to answer the state, by statistics of a day that
-- has just begun.
UPDATE jobs
   SET status = 'queued', dispatched_at = NULL, lane = NULL, attempts_before = attempt, retry_count = 0, last_error = NULL, finished_at = NULL, ended_by = NULL,
       run_at = coalesce(CAST(:first AS timestamptz), now()) + make_interval(secs => (place - 1) * CAST(:gap AS float8)),
       cancel_requested_at = NULL, cancel_reason = NULL, callback_job_id = NULL, updated_at = now(),
       expires_at = CASE WHEN expires_at > now() THEN expires_at END
  FROM unnest(CAST(:ids AS uuid[])) WITH ORDINALITY AS given(given_id, place)
 WHERE id = ANY(CAST(:ids AS uuid[])) AND id = given_id AND finished_at >= :since
   AND (status IN ('failed', 'cancelled')) IS TRUE
RETURNING run_at;

-- name: close_dead_letters
-- A statement of its own: after a wait for a job's row it also sees the dead letter that the other session wrote.
UPDATE dead_letters SET requeued_at = now(), resolved_by = :by, resolved_why = :why
 WHERE job_id = ANY(CAST(:ids AS uuid[])) AND requeued_at IS NULL AND discarded_at IS NULL;
