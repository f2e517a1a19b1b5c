-- Tasks whose flow was ever changed; one without a row is as by default.
--
-- Guard: `lock` comes first in a transaction that changes one: who changes it as well waits, and then sees what was done.
-- Locks: the task's row.

-- name: find
SELECT task, paused_at, paused_by, paused_why, version,
       concurrency, rate_limit, rate_per, rate_burst, NULL::int, NULL::int, NULL::float8, NULL::int, false, NULL::text, NULL::float8,
       NULL::int, NULL::float8, NULL::int FROM task_limits WHERE task = :name;

-- name: all
SELECT task, paused_at, paused_by, paused_why, version,
       concurrency, rate_limit, rate_per, rate_burst, NULL::int, NULL::int, NULL::float8, NULL::int, false, NULL::text, NULL::float8,
       NULL::int, NULL::float8, NULL::int FROM task_limits ORDER BY task;

-- name: make
INSERT INTO task_limits (task) VALUES (:name) ON CONFLICT DO NOTHING;

-- name: lock
SELECT task, paused_at, paused_by, paused_why, version,
       concurrency, rate_limit, rate_per, rate_burst, NULL::int, NULL::int, NULL::float8, NULL::int, false, NULL::text, NULL::float8,
       NULL::int, NULL::float8, NULL::int FROM task_limits WHERE task = :name FOR UPDATE;

-- name: set
-- Pauses it, or resumes it. From a pause on it may have jobs that are set aside (`webapp/queues/sql/aside.sql`).
UPDATE task_limits SET paused_at = CASE WHEN :paused THEN now() END, paused_by = :by, paused_why = :why,
                       has_aside = has_aside OR :paused, version = version + 1, updated_at = now()
 WHERE task = :name
RETURNING task, paused_at, paused_by, paused_why, version,
       concurrency, rate_limit, rate_per, rate_burst, NULL::int, NULL::int, NULL::float8, NULL::int, false, NULL::text, NULL::float8,
       NULL::int, NULL::float8, NULL::int;

-- name: limit
-- Gives it limits, or takes them away. Where it had some, jobs may still lie in lanes.
UPDATE task_limits
   SET concurrency = :concurrency, rate_limit = :rate_limit, rate_per = :rate_per, rate_burst = :rate_burst,
       is_limited = :is_limited, has_lanes = has_lanes OR :is_limited,
       next_start = CASE WHEN (rate_limit, rate_per) IS NOT DISTINCT FROM (:rate_limit, :rate_per) THEN next_start ELSE 0 END,
       version = version + 1, updated_at = now()
 WHERE task = :name
RETURNING task, paused_at, paused_by, paused_why, version,
       concurrency, rate_limit, rate_per, rate_burst, NULL::int, NULL::int, NULL::float8, NULL::int, false, NULL::text, NULL::float8,
       NULL::int, NULL::float8, NULL::int;
