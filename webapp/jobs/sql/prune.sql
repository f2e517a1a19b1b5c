-- Deletes jobs that ended more than `days` ago and lie in the default partition, the oldest first, with their attempts, logs and dead
-- letters: those that ended before history lay apart, or on a day that had no partition. All others go with their partition.
-- Guard: `finished_at`, which only final jobs have (a CHECK).
-- Locks: the rows of the jobs, those that another session has locked left out; then those of their attempts and dead letters.
WITH old AS (
    SELECT id FROM jobs_living WHERE finished_at < now() - make_interval(days => :days)
     ORDER BY finished_at LIMIT :limit FOR UPDATE SKIP LOCKED),
logs AS (DELETE FROM job_logs WHERE job_id IN (SELECT id FROM old)),
attempts AS (DELETE FROM job_attempts WHERE job_id IN (SELECT id FROM old)),
letters AS (DELETE FROM dead_letters WHERE job_id IN (SELECT id FROM old))
DELETE FROM jobs_living WHERE id IN (SELECT id FROM old);
