-- The status of a job whose attempt's end is on record, for a process that did not hear the answer to its commit.
-- Guard: the attempt ended in the hands of this process, and not by being lost or given back. Reads two primary keys; locks nothing.
SELECT jobs.status FROM job_attempts AS ended JOIN jobs ON jobs.id = ended.job_id
 WHERE ended.job_id = :id AND ended.attempt = :attempt AND ended.worker_id = :worker_id
   AND ended.outcome IN ('completed', 'failed', 'cancelled', 'snoozed');
