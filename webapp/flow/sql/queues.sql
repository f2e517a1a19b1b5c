-- Queues whose flow was ever changed; one without a row is as by default.
--
-- Guard: `lock` comes first in a transaction that changes one: who changes it as well waits, and then sees what was done.
-- Locks: the queue's row.

-- name: find
SELECT name, paused_at, paused_by, paused_why, version FROM queues WHERE name = :name;

-- name: all
SELECT name, paused_at, paused_by, paused_why, version FROM queues ORDER BY name;

-- name: make
INSERT INTO queues (name) VALUES (:name) ON CONFLICT DO NOTHING;

-- name: lock
SELECT name, paused_at, paused_by, paused_why, version FROM queues WHERE name = :name FOR UPDATE;

-- name: set
-- Pauses it, or resumes it.
UPDATE queues SET paused_at = CASE WHEN :paused THEN now() END, paused_by = :by, paused_why = :why,
                  version = version + 1, updated_at = now()
 WHERE name = :name
RETURNING name, paused_at, paused_by, paused_why, version;
