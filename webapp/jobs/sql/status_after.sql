-- The status of a job whose attempt's end is on record, for a process that did not hear the answer to its commit.
-- Guard: the attempt ended in the hands of this process, and not by being lost or given back. Reads primary keys, and of history
-- the last day; locks nothing.
SELECT jobs.status FROM job_attempts AS ended JOIN jobs ON jobs.id = ended.job_id
 WHERE ended.job_id = :id AND ended.attempt = :attempt AND ended.worker_id = :worker_id
   AND ended.outcome IN ('completed', 'failed', 'cancelled', 'snoozed')
 UNION ALL
SELECT status FROM jobs
 WHERE id = :id AND attempt = :attempt AND status = 'completed' AND ended_by = :worker_id
   AND finished_at > now() - interval '1 day';
