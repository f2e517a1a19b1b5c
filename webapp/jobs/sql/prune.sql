-- Deletes final jobs that ended more than `days` ago, the oldest first, with their attempts.
-- Guard: `finished_at`, which only final jobs have (a CHECK).
-- Locks: the rows of the jobs, those that another session has locked left out; then those of their attempts.
WITH old AS (
    SELECT id FROM jobs WHERE finished_at < now() - make_interval(days => :days)
     ORDER BY finished_at LIMIT :limit FOR UPDATE SKIP LOCKED),
attempts AS (DELETE FROM job_attempts WHERE job_id IN (SELECT id FROM old))
DELETE FROM jobs WHERE id IN (SELECT id FROM old);
