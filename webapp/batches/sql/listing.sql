-- Batches as those see them who ask. Counters and the notes that are not counted yet are read in one snapshot, so they are exact.
--
-- Guard: what is out of reach is not there: another tenant's, and for a key of some queues what it has not made itself.
-- Locks: none.

-- name: find
SELECT g.id, g.name, g.status, g.tenant_id, g.submitted_by, g.parent_id,
       g.total, g.completed + coalesce(n.completed, 0), g.failed + coalesce(n.failed, 0), g.cancelled + coalesce(n.cancelled, 0), g.skipped,
       g.options, g.complete_job_id, g.success_job_id, g.failure_job_id, g.callback_url, g.callback_job_id, g.deadline,
       g.cancel_requested_at, g.cancel_reason, g.created_at, g.updated_at, g.closed_at, g.closed_why, g.finished_at, g.retry_until,
       g.pace, now(), CASE WHEN g.tenant_id <> 1 THEN (SELECT slug FROM tenants WHERE tenants.id = g.tenant_id) END AS tenant
  FROM groups AS g LEFT JOIN LATERAL (
       SELECT count(*) FILTER (WHERE became = 'completed') - count(*) FILTER (WHERE was = 'completed') AS completed,
              count(*) FILTER (WHERE became = 'failed') - count(*) FILTER (WHERE was = 'failed') AS failed,
              count(*) FILTER (WHERE became = 'cancelled') - count(*) FILTER (WHERE was = 'cancelled') AS cancelled
         FROM group_ends WHERE group_ends.group_id = g.id) AS n ON true
 WHERE g.id = :id AND g.kind = 'batch'
   AND g.submitted_by = :key                     -- reach
   AND g.tenant_id = :tenant AND g.tenant_id <> 1 -- tenant
   AND g.tenant_id <= :tenant                    -- default tenant
;

-- name: page
-- From the newest on.
SELECT g.id, g.name, g.status, g.tenant_id, g.submitted_by, g.parent_id,
       g.total, g.completed + coalesce(n.completed, 0), g.failed + coalesce(n.failed, 0), g.cancelled + coalesce(n.cancelled, 0), g.skipped,
       CAST('{}' AS jsonb), g.complete_job_id, g.success_job_id, g.failure_job_id, g.callback_url, g.callback_job_id, g.deadline,
       g.cancel_requested_at, g.cancel_reason, g.created_at, g.updated_at, g.closed_at, g.closed_why, g.finished_at, g.retry_until,
       g.pace, now(), CASE WHEN g.tenant_id <> 1 THEN (SELECT slug FROM tenants WHERE tenants.id = g.tenant_id) END AS tenant
  FROM groups AS g LEFT JOIN LATERAL (
       SELECT count(*) FILTER (WHERE became = 'completed') - count(*) FILTER (WHERE was = 'completed') AS completed,
              count(*) FILTER (WHERE became = 'failed') - count(*) FILTER (WHERE was = 'failed') AS failed,
              count(*) FILTER (WHERE became = 'cancelled') - count(*) FILTER (WHERE was = 'cancelled') AS cancelled
         FROM group_ends WHERE group_ends.group_id = g.id) AS n ON true
 WHERE g.kind = 'batch' AND g.id < :before
   AND (CAST(:status AS text) IS NULL OR g.status = :status) AND (CAST(:name AS text) IS NULL OR g.name = :name)
   AND (CAST(:parent AS uuid) IS NULL OR g.parent_id = :parent)
   AND g.submitted_by = :key                     -- reach
   AND g.tenant_id = :tenant AND g.tenant_id <> 1 -- tenant
   AND g.tenant_id <= :tenant                    -- default tenant
 ORDER BY g.id DESC LIMIT :limit;

-- name: watch
-- Has a batch tell of its changes, on the channel `djps_watched`.
UPDATE groups SET watched = true WHERE id = :id AND NOT watched AND finished_at IS NULL;

-- name: unfinished
-- What of a batch has not ended: jobs that wait and that run, and batches; each counted up to :most. And notes that are not counted.
SELECT (SELECT count(*) FROM (SELECT FROM jobs_living WHERE group_id = :id AND status = 'queued' LIMIT :most) AS counted),
       (SELECT count(*) FROM (SELECT FROM jobs_living WHERE group_id = :id AND status = 'processing' LIMIT :most) AS counted),
       (SELECT count(*) FROM (SELECT FROM groups WHERE parent_id = :id AND finished_at IS NULL LIMIT :most) AS counted),
       (SELECT count(*) FROM (SELECT FROM group_ends WHERE group_id = :id LIMIT :most) AS counted);
