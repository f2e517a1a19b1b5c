-- Batches as a whole: cancelled, queued again, closed, deleted; in portions, for a batch may have a million members.
--
-- Guard: what is asked is kept in the batch's row, and done by the request itself, then by the sweep.
-- Locks: members that no other session has locked; a batch's row only where it is changed, and never before those of other batches.

-- name: ask_cancel
-- The first reason stays. A batch that is being cancelled takes no members, from inside either.
UPDATE groups SET cancel_requested_at = now(), cancel_reason = :reason, status = 'closed', closed_at = coalesce(closed_at, now()),
       retry_until = NULL, updated_at = now()
 WHERE id = :id AND kind = 'batch' AND finished_at IS NULL AND cancel_requested_at IS NULL RETURNING id;

-- name: cancel_waiting
UPDATE jobs SET status = 'cancelled', cancel_reason = :reason, finished_at = now(), updated_at = now()
 WHERE finished_at IS NULL AND status = 'queued' AND id = ANY(ARRAY(
       SELECT id FROM jobs_living WHERE group_id = :id AND status = 'queued' AND finished_at IS NULL
        ORDER BY id LIMIT :limit FOR UPDATE SKIP LOCKED))
RETURNING lane;

-- name: ask_running
-- One whose last attempt has failed waits for its dead letter, and is left alone.
UPDATE jobs_living SET cancel_requested_at = now(), cancel_reason = :reason, status = status, updated_at = now()
 WHERE status = 'processing' AND cancel_requested_at IS NULL AND id = ANY(ARRAY(
       SELECT id FROM jobs_living WHERE group_id = :id AND status = 'processing' AND cancel_requested_at IS NULL AND NOT EXISTS (
              SELECT FROM job_attempts AS ended WHERE ended.job_id = jobs_living.id AND ended.attempt = jobs_living.attempt)
        ORDER BY id LIMIT :limit FOR UPDATE SKIP LOCKED));

-- name: cancel_children
-- Groups that are members; workflows see to their own steps.
UPDATE groups SET cancel_requested_at = now(), cancel_reason = :reason, updated_at = now(),
       status = CASE WHEN kind = 'batch' THEN 'closed' ELSE status END,
       closed_at = CASE WHEN kind = 'batch' THEN coalesce(closed_at, now()) ELSE closed_at END
 WHERE finished_at IS NULL AND cancel_requested_at IS NULL AND id = ANY(ARRAY(
       SELECT id FROM groups WHERE parent_id = :id AND finished_at IS NULL AND cancel_requested_at IS NULL
        ORDER BY id LIMIT :limit FOR UPDATE SKIP LOCKED))
RETURNING id, kind;

-- name: to_cancel
SELECT id, cancel_reason FROM groups
 WHERE kind = 'batch' AND finished_at IS NULL AND cancel_requested_at IS NOT NULL AND id > :after ORDER BY id LIMIT :limit;

-- name: ask_retry
-- What fails after this moment is left as it is.
UPDATE groups SET retry_until = now(), retry_after = NULL, cancel_requested_at = NULL, cancel_reason = NULL, updated_at = now()
 WHERE id = :id AND kind = 'batch' RETURNING id;

-- name: retry_children
UPDATE groups SET retry_until = now(), retry_after = NULL, cancel_requested_at = NULL, cancel_reason = NULL, updated_at = now()
 WHERE retry_until IS NULL AND id = ANY(ARRAY(
       SELECT id FROM groups WHERE parent_id = :id AND kind = 'batch' AND status = 'failed' AND retry_until IS NULL
        ORDER BY id LIMIT :limit FOR UPDATE SKIP LOCKED));

-- name: to_retry
SELECT id FROM groups WHERE retry_until IS NOT NULL AND id > :after ORDER BY id LIMIT :limit;

-- name: take_retry
SELECT retry_until, coalesce(retry_after, '00000000-0000-0000-0000-000000000000'), created_at FROM groups
 WHERE id = :id AND retry_until IS NOT NULL FOR UPDATE SKIP LOCKED;

-- name: failed_members
-- The next members by id, so many that are looked at; and which of them have failed. None ended before its batch was made.
WITH looked AS MATERIALIZED (
    SELECT id, status, finished_at FROM jobs
     WHERE group_id = :id AND id > :after AND finished_at >= :since AND finished_at <= :until
     ORDER BY id LIMIT :limit)
SELECT count(*), (SELECT id FROM looked ORDER BY id DESC LIMIT 1), min(finished_at) FILTER (WHERE status = 'failed'),
       CAST(coalesce(array_agg(id ORDER BY id) FILTER (WHERE status = 'failed'), '{}') AS text[])
  FROM looked;

-- name: retried
-- How far it came; NULL and NULL: it is done. A batch that was over goes on at once where a member does.
UPDATE groups SET retry_until = CASE WHEN CAST(:after AS uuid) IS NOT NULL THEN retry_until END, retry_after = :after, updated_at = now(),
       status = CASE WHEN :goes_on AND finished_at IS NOT NULL THEN 'closed' ELSE status END,
       callback_job_id = CASE WHEN :goes_on AND finished_at IS NOT NULL THEN NULL ELSE callback_job_id END,
       finished_at = CASE WHEN :goes_on THEN NULL ELSE finished_at END
 WHERE id = :id;

-- name: prune
-- Batches that ended more than so many days ago, with their parts.
WITH old AS (
    SELECT id FROM groups WHERE kind = 'batch' AND finished_at < now() - make_interval(days => :days)
     ORDER BY finished_at LIMIT :limit FOR UPDATE SKIP LOCKED),
parts AS (DELETE FROM batch_parts WHERE group_id = ANY(ARRAY(SELECT id FROM old)))
DELETE FROM groups WHERE id = ANY(ARRAY(SELECT id FROM old));
