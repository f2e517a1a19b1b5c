-- History: the partitions of `jobs` in which ended jobs lie, one for each day, or for each month where they are kept long.
--
-- Guard of `detach` and `drop`: their caller names a partition whose time was over RETENTION_DAYS ago.
-- Locks: those that make or take off a partition keep every other statement on `jobs` waiting, for as long as it takes to change
-- the catalog; they wait for their own lock no longer than `bound` says, and are tried again. The others lock nothing.

-- name: bound
-- Before each of those, in its transaction: who waits for such a lock has all others wait behind it.
SELECT set_config('lock_timeout', CAST(:lock_ms AS text), true), set_config('statement_timeout', CAST(:statement_ms AS text), true);

-- name: moment
-- Which day it is; a worker's clock may be wrong.
SELECT now();

-- name: periods
-- Each partition with what it holds, in PostgreSQL's own words; the default partition has none.
SELECT child.relname, pg_get_expr(child.relpartbound, child.oid)
  FROM pg_inherits JOIN pg_class AS child ON child.oid = inhrelid
 WHERE inhparent = 'jobs'::regclass AND pg_get_expr(child.relpartbound, child.oid) <> 'DEFAULT';

-- name: taken_off
-- What was a partition: jobs that are gone from `jobs`, while their attempts and dead letters may not be.
SELECT relname FROM pg_class
 WHERE relkind = 'r' AND NOT relispartition AND relname ~ '^jobs_[0-9]{8}_gone$'
   AND relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = 'jobs'::regclass);

-- name: living
-- How large the default partition is, in bytes; whether a job that ended at `since` or later lies there; whether a promise does.
SELECT pg_relation_size('jobs_living'),
       EXISTS (SELECT FROM jobs_living WHERE finished_at IS NOT NULL AND finished_at >= :since),
       EXISTS (SELECT FROM pg_constraint WHERE conrelid = 'jobs_living'::regclass AND conname = 'jobs_living_promise');

-- name: promise
-- Says that no job of that time lies in the default partition, so that a partition for it is made without a look at each row.
ALTER TABLE jobs_living ADD CONSTRAINT jobs_living_promise
CHECK (finished_at IS NULL OR finished_at < :since OR finished_at >= :until) NOT VALID;

-- name: prove
-- Looks at each row, while others write.
ALTER TABLE jobs_living VALIDATE CONSTRAINT jobs_living_promise;

-- name: forget_promise
ALTER TABLE jobs_living DROP CONSTRAINT IF EXISTS jobs_living_promise;

-- name: make
-- Unless another sweep has made it meanwhile.
SELECT djps_make_history(:name, :since, :until) WHERE to_regclass(CAST(:name AS text)) IS NULL;

-- name: clear
-- Deletes from a table that was taken off the jobs of which more is left than their row, and that.
WITH gone AS (
    DELETE FROM jobs_yyyymmdd WHERE id = ANY(ARRAY(
        SELECT id FROM jobs_yyyymmdd WHERE ended_by IS NULL OR attempt > 1 OR status <> 'completed' LIMIT :limit))
    RETURNING id),
letters AS (DELETE FROM dead_letters WHERE job_id IN (SELECT id FROM gone)),
ends AS (DELETE FROM job_attempts WHERE job_id IN (SELECT id FROM gone))
SELECT count(*) FROM gone;
