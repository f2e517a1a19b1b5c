-- Workflows, which are rows of `groups`: made, looked at, locked, moved on.
--
-- Guard: the lock of the workflow's row. Whatever moves its steps holds it from the first look to the commit, so each step begins once; a
-- step that begins was waiting, which its UPDATE looks at again.
-- Locks: the workflow, then its notes, then the rows of jobs. An end of a job locks the job and adds a note, and never comes to the workflow.

-- name: insert
INSERT INTO groups (id, kind, name, status, tenant_id, submitted_by, request_id, traceparent, parent_id, total, options, callback_url,
                    idempotency_key, fingerprint, deadline, closed_at)
SELECT :id, 'workflow', :name, 'running', :tenant, :submitted_by, :request_id, :traceparent, :parent_id, :total,
       CAST(:options AS jsonb), :callback_url, :idempotency_key, :fingerprint, :deadline, now()
ON CONFLICT DO NOTHING
RETURNING id;

-- name: by_key
-- The workflow that was made under an idempotency key.
SELECT id, fingerprint FROM groups WHERE kind = 'workflow' AND idempotency_key = :key;

-- name: find
SELECT g.id, g.name, g.status, g.tenant_id, t.slug, g.submitted_by, g.request_id, g.traceparent, g.parent_id,
       g.total, g.completed, g.failed, g.cancelled, g.skipped, g.options, g.complete_job_id, g.success_job_id, g.failure_job_id,
       g.callback_url, g.callback_job_id, g.idempotency_key, g.deadline, g.cancel_requested_at, g.cancel_reason,
       g.created_at, g.updated_at, g.finished_at, now()
  FROM groups AS g JOIN tenants AS t ON t.id = g.tenant_id
 WHERE g.id = :id AND g.kind = 'workflow'
   AND (CAST(:tenant AS int) IS NULL OR g.tenant_id = CAST(:tenant AS int))
   AND (CAST(:queues AS jsonb) IS NULL OR g.options -> 'queues' <@ CAST(:queues AS jsonb));

-- name: page
-- Behind `before`, the newest first.
SELECT g.id, g.name, g.status, g.tenant_id, t.slug, g.submitted_by, g.request_id, g.traceparent, g.parent_id,
       g.total, g.completed, g.failed, g.cancelled, g.skipped, g.options, g.complete_job_id, g.success_job_id, g.failure_job_id,
       g.callback_url, g.callback_job_id, g.idempotency_key, g.deadline, g.cancel_requested_at, g.cancel_reason,
       g.created_at, g.updated_at, g.finished_at, now()
  FROM groups AS g JOIN tenants AS t ON t.id = g.tenant_id
 WHERE g.kind = 'workflow' AND (CAST(:before AS uuid) IS NULL OR g.id < CAST(:before AS uuid))
   AND (CAST(:tenant AS int) IS NULL OR g.tenant_id = CAST(:tenant AS int))
   AND (CAST(:queues AS jsonb) IS NULL OR g.options -> 'queues' <@ CAST(:queues AS jsonb))
   AND (CAST(:status AS text) IS NULL OR g.status = CAST(:status AS text))
   AND (CAST(:name AS text) IS NULL OR g.name = CAST(:name AS text))
 ORDER BY g.id DESC LIMIT :limit;

-- name: try_lock
-- The workflow, unless another session is at it, which looks again once it is through.
SELECT g.id, g.name, g.status, g.tenant_id, t.slug, g.submitted_by, g.request_id, g.traceparent, g.parent_id,
       g.total, g.completed, g.failed, g.cancelled, g.skipped, g.options, g.complete_job_id, g.success_job_id, g.failure_job_id,
       g.callback_url, g.callback_job_id, g.idempotency_key, g.deadline, g.cancel_requested_at, g.cancel_reason,
       g.created_at, g.updated_at, g.finished_at, now()
  FROM groups AS g JOIN tenants AS t ON t.id = g.tenant_id
 WHERE g.id = :id AND g.kind = 'workflow' FOR NO KEY UPDATE OF g SKIP LOCKED;

-- name: lock
SELECT FROM groups WHERE id = :id AND kind = 'workflow' FOR NO KEY UPDATE;

-- name: take_notes
-- The members of which something is noted. What became of them is not taken from here: it is looked at now.
DELETE FROM group_ends WHERE group_id = :id RETURNING member_id;

-- name: has_notes
-- True if a member's end was noted meanwhile; a note of the workflow itself asks for a look later.
SELECT EXISTS (SELECT FROM group_ends WHERE group_id = :id AND member_id <> :id);

-- name: note_itself
-- Asks for another look at a workflow of which something is left to do.
INSERT INTO group_ends (group_id, member_id) VALUES (:id, :id);

-- name: move
UPDATE groups
   SET status = :status, completed = :completed, failed = :failed, cancelled = :cancelled, skipped = :skipped, updated_at = now(),
       finished_at = CASE WHEN :is_final THEN coalesce(finished_at, now()) END,
       complete_job_id = CAST(:complete_job_id AS uuid), success_job_id = CAST(:success_job_id AS uuid),
       failure_job_id = CAST(:failure_job_id AS uuid), callback_job_id = CAST(:callback_job_id AS uuid)
 WHERE id = :id;

-- name: ask_cancel
UPDATE groups SET cancel_requested_at = now(), cancel_reason = :reason, updated_at = now()
 WHERE id = :id AND cancel_requested_at IS NULL;

-- name: resume
-- What was asked of it before does not hold any more; a deadline that has passed does not cancel it again.
UPDATE groups
   SET cancel_requested_at = NULL, cancel_reason = NULL, updated_at = now(),
       deadline = CASE WHEN deadline > now() THEN deadline END
 WHERE id = :id;

-- name: sign_callback
-- Says whose end a job tells of that was just stored: no submission can, and by that its call is signed as a callback.
UPDATE jobs_living SET callback_of = :workflow_id WHERE id = :job_id AND callback_of IS NULL;

-- name: note_member
-- A member of a group ended in another way than before.
INSERT INTO group_ends (group_id, member_id) VALUES (:group_id, :member_id);

-- name: watch
-- Makes a workflow tell of its changes, on the channel `djps_watched`.
UPDATE groups SET watched = true WHERE id = :id AND NOT watched AND finished_at IS NULL;

-- name: look
-- True where something of a group is noted, and where a workflow is past its deadline. Both indexes are empty where there are none.
SELECT EXISTS (SELECT FROM group_ends),
       EXISTS (SELECT FROM groups WHERE deadline <= now() AND finished_at IS NULL AND cancel_requested_at IS NULL AND kind = 'workflow');

-- name: noted
-- The next workflows that have notes: from one id to the next larger one by the index, however many notes each has.
WITH RECURSIVE next AS (
    (SELECT group_id, 1 AS number FROM group_ends WHERE group_id > :after ORDER BY group_id LIMIT 1)
     UNION ALL
    SELECT (SELECT ends.group_id FROM group_ends AS ends WHERE ends.group_id > next.group_id ORDER BY ends.group_id LIMIT 1),
           next.number + 1
      FROM next WHERE next.group_id IS NOT NULL AND next.number < :limit)
SELECT next.group_id, EXISTS (SELECT FROM groups WHERE groups.id = next.group_id AND groups.kind = 'workflow')
  FROM next WHERE next.group_id IS NOT NULL ORDER BY next.group_id;

-- name: overdue
-- Those that are past their deadline and were not asked to stop.
SELECT id FROM groups
 WHERE deadline <= now() AND finished_at IS NULL AND cancel_requested_at IS NULL AND kind = 'workflow'
 ORDER BY deadline LIMIT :limit;

-- name: prune
-- With their steps; gives how many workflows.
WITH old AS (
    DELETE FROM groups
     WHERE id IN (SELECT id FROM groups WHERE kind = 'workflow' AND finished_at < now() - make_interval(days => :days)
                   ORDER BY finished_at LIMIT :limit FOR UPDATE SKIP LOCKED)
    RETURNING id),
steps AS (
    DELETE FROM workflow_steps WHERE workflow_id IN (SELECT id FROM old))
SELECT count(*) FROM old;

-- name: overdue_by_notes
-- How many workflows have notes that are so old, among the first :most groups that have some.
WITH RECURSIVE next AS (
    (SELECT group_id, 1 AS number FROM group_ends ORDER BY group_id LIMIT 1)
     UNION ALL
    SELECT (SELECT ends.group_id FROM group_ends AS ends WHERE ends.group_id > next.group_id ORDER BY ends.group_id LIMIT 1),
           next.number + 1
      FROM next WHERE next.group_id IS NOT NULL AND next.number < :most)
SELECT count(*) FROM next JOIN groups ON groups.id = next.group_id
 WHERE groups.kind = 'workflow' AND EXISTS (
       SELECT FROM group_ends WHERE group_ends.group_id = groups.id AND group_ends.member_id <> groups.id
          AND group_ends.noted_at < now() - make_interval(secs => :seconds));
