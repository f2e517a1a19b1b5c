-- Tasks whose flow was ever changed; one without a row is as by default.
--
-- Guard: `lock` comes first in a transaction that changes one: who changes it as well waits, and then sees what was done.
-- Locks: the task's row.

-- name: find
SELECT task, paused_at, paused_by, paused_why, version FROM task_limits WHERE task = :name;

-- name: all
SELECT task, paused_at, paused_by, paused_why, version FROM task_limits ORDER BY task;

-- name: make
INSERT INTO task_limits (task) VALUES (:name) ON CONFLICT DO NOTHING;

-- name: lock
SELECT task, paused_at, paused_by, paused_why, version FROM task_limits WHERE task = :name FOR UPDATE;

-- name: set
-- Pauses it, or resumes it. From a pause on it may have jobs that are set aside (`webapp/queues/sql/aside.sql`).
UPDATE task_limits SET paused_at = CASE WHEN :paused THEN now() END, paused_by = :by, paused_why = :why,
                       has_aside = has_aside OR :paused, version = version + 1, updated_at = now()
 WHERE task = :name
RETURNING task, paused_at, paused_by, paused_why, version;
