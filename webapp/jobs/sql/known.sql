-- What the database knows of handlers and settings, for `djps_submit`.
--
-- Guard: of those who would say something else, one at a time writes; the others look again behind it.
-- Locks: `tell` the one row of the rules, or the place where it will be; the rest is behind that.

-- name: stamp
SELECT stamp FROM submission_rules;

-- name: tell
INSERT INTO submission_rules AS known (stamp, max_payload_bytes, max_retries, timeout, key_ttl, default_task, only_known, queues)
VALUES (:stamp, :max_payload_bytes, :max_retries, :timeout, :key_ttl, :default_task, :only_known, :queues)
ON CONFLICT (one) DO UPDATE
   SET stamp = excluded.stamp, max_payload_bytes = excluded.max_payload_bytes, max_retries = excluded.max_retries,
       timeout = excluded.timeout, key_ttl = excluded.key_ttl, default_task = excluded.default_task,
       only_known = excluded.only_known, queues = excluded.queues, told_at = now()
 WHERE known.stamp <> excluded.stamp;

-- name: forget
DELETE FROM known_handlers WHERE task <> ALL (:tasks);

-- name: handlers
-- All of them, in one statement.
INSERT INTO known_handlers AS known (task, queue, max_retries, timeout, priority, backoff, tags, expires_in, has_model)
SELECT task, queue, max_retries, timeout, priority, backoff, ARRAY(SELECT jsonb_array_elements_text(tags)), expires_in, has_model
  FROM jsonb_to_recordset(CAST(:handlers AS jsonb))
       AS given(task text, queue text, max_retries int, timeout float8, priority smallint, backoff jsonb, tags jsonb, expires_in float8,
                has_model boolean)
ON CONFLICT (task) DO UPDATE
   SET queue = excluded.queue, max_retries = excluded.max_retries, timeout = excluded.timeout, priority = excluded.priority,
       backoff = excluded.backoff, tags = excluded.tags, expires_in = excluded.expires_in, has_model = excluded.has_model;

-- name: counted
-- Jobs that came by `djps_submit` and that no process has counted: now this one does.
DELETE FROM uncounted_jobs WHERE job_id IN (SELECT job_id FROM uncounted_jobs LIMIT :limit FOR UPDATE SKIP LOCKED);
