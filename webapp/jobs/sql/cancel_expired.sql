-- Cancels jobs whose `expires_at` passed before their first attempt, the longest expired first.
-- Guard: the job is queued and was never claimed. The claim refuses such a job by itself, so one that is late here does not run.
-- Locks: the rows of the jobs, those that another session has locked left out.
UPDATE jobs
   SET status = 'cancelled', cancel_reason = :reason, finished_at = now(), updated_at = now()
 WHERE finished_at IS NULL AND status = 'queued' AND id IN (
    SELECT id FROM jobs_living
     WHERE status = 'queued' AND expires_at <= now() AND attempt = 0
     ORDER BY expires_at LIMIT :limit FOR UPDATE SKIP LOCKED)
RETURNING lane;
