-- Batches: made, closed, joined, judged.
--
-- Guard: what changes a batch is guarded by its row: members are added to one that is not closed, or by a member that runs and
-- cannot end meanwhile.
-- Locks: who adds members locks the row last, so it is held for the commit only; who judges holds it already.

-- name: make
INSERT INTO groups (id, kind, name, status, tenant_id, submitted_by, request_id, traceparent, parent_id, options, callback_url,
                    idempotency_key, fingerprint, deadline)
VALUES (:id, 'batch', :name, 'open', :tenant, :submitted_by, :request_id, :traceparent, :parent_id, CAST(:options AS jsonb),
        :callback_url, :idempotency_key, :fingerprint, now() + make_interval(secs => :open_for))
ON CONFLICT DO NOTHING RETURNING id;

-- name: by_key
SELECT id, fingerprint FROM groups WHERE kind = 'batch' AND idempotency_key = :key;

-- name: depth
-- How many batches a batch is in, itself included.
WITH RECURSIVE above AS (
    SELECT id, parent_id, 1 AS depth FROM groups WHERE id = :id
    UNION ALL
    SELECT groups.id, groups.parent_id, above.depth + 1 FROM above JOIN groups ON groups.id = above.parent_id
     WHERE above.depth < :most)
SELECT max(depth) FROM above;

-- name: hold_member
-- Keeps a member that runs from ending until the transaction does, so that its batch is not over before.
SELECT id FROM jobs_living
 WHERE id = :job_id AND group_id = :id AND status = 'processing' AND attempt = :attempt FOR SHARE;

-- name: join_open
UPDATE groups SET total = total + :number, updated_at = now()
 WHERE id = :id AND kind = 'batch' AND closed_at IS NULL RETURNING id;

-- name: join_inside
-- From a member that is held: also where the batch is closed, but not where it is being cancelled. One that was over has a member
-- that was queued again, and goes on: that is not counted yet.
UPDATE groups SET total = total + :number, updated_at = now(),
       status = CASE WHEN finished_at IS NOT NULL THEN 'closed' ELSE status END,
       callback_job_id = CASE WHEN finished_at IS NULL THEN callback_job_id END,
       cancel_requested_at = NULL, cancel_reason = NULL, finished_at = NULL
 WHERE id = :id AND kind = 'batch' AND (cancel_requested_at IS NULL OR finished_at IS NOT NULL) RETURNING id;

-- name: close
UPDATE groups SET status = 'closed', closed_at = now(), closed_why = :why, updated_at = now()
 WHERE id = :id AND kind = 'batch' AND closed_at IS NULL RETURNING id;

-- name: close_late
-- Those that have been open for as long as they may.
UPDATE groups SET status = 'closed', closed_at = now(), closed_why = :why, updated_at = now()
 WHERE closed_at IS NULL AND id = ANY(ARRAY(
       SELECT id FROM groups WHERE kind = 'batch' AND closed_at IS NULL AND deadline <= now()
        ORDER BY deadline LIMIT :limit FOR UPDATE SKIP LOCKED))
RETURNING id;

-- name: standing
-- How batches stand that are locked, with what is needed to say what follows. Counters alone: `has_notes` says whether they are all, and
-- whether failed members are still being queued again: they are as good as noted.
SELECT id, status, total, completed, failed, cancelled, skipped, closed_at IS NOT NULL, cancel_requested_at IS NOT NULL,
       retry_until IS NOT NULL OR EXISTS (SELECT FROM group_ends WHERE group_ends.group_id = groups.id) AS has_notes,
       options ? 'on_failure' AND failure_job_id IS NULL, options ? 'on_complete' AND complete_job_id IS NULL,
       options ? 'on_success' AND success_job_id IS NULL, pace, now()
  FROM groups WHERE id = ANY(CAST(:ids AS uuid[])) AND kind = 'batch';

-- name: reopen
-- A new end is told anew, to the batch that this one is in as well. What was cancelled is over: who queues a member again means it.
UPDATE groups SET status = 'closed', finished_at = NULL, callback_job_id = NULL, cancel_requested_at = NULL, cancel_reason = NULL,
       updated_at = now()
 WHERE id = :id AND finished_at IS NOT NULL;

-- name: end
UPDATE groups SET status = :status, finished_at = now(), updated_at = now() WHERE id = :id AND finished_at IS NULL;

-- name: note_events
UPDATE groups SET failure_job_id = coalesce(failure_job_id, CAST(:failure AS uuid)),
       complete_job_id = coalesce(complete_job_id, CAST(:complete AS uuid)),
       success_job_id = coalesce(success_job_id, CAST(:success AS uuid))
 WHERE id = :id;

-- name: keep_pace
UPDATE groups SET pace = CAST(:pace AS jsonb) WHERE id = :id;

-- name: owner
-- Whose a batch is that is locked, and what it was made with.
SELECT name, tenant_id, CASE WHEN tenant_id <> 1 THEN (SELECT slug FROM tenants WHERE tenants.id = tenant_id) END AS tenant, submitted_by,
       request_id, traceparent, options
  FROM groups WHERE id = :id;

-- name: call_back
-- The job that tells of a batch's end, with the mark that lets its call be signed; and the note of it.
WITH told AS (
    UPDATE groups SET callback_job_id = :job_id WHERE id = :id AND callback_job_id IS NULL
    RETURNING request_id, traceparent, tenant_id, submitted_by)
INSERT INTO jobs_living (id, task, payload, queue, max_retries, timeout, backoff, fingerprint, request_id, traceparent,
                  callback_of, tenant_id, submitted_by)
SELECT :job_id, :task, CAST(:payload AS jsonb), :queue, :max_retries, :timeout, CAST(:backoff AS jsonb),
       sha256(convert_to(CAST(:payload AS text), 'UTF8')), request_id, traceparent, :id, tenant_id, submitted_by
  FROM told;

-- name: batch_of
SELECT groups.id FROM jobs_living AS job JOIN groups ON groups.id = job.group_id AND kind = 'batch' WHERE job.id = :id;
