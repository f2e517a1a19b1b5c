-- One job, with the fields of a `JobRow` in its order. Reads primary keys, of history those from `since` until `until`, and an
-- index of unique keys; locks nothing.

-- name: find
SELECT id, task, coalesce(payload_as_sent, CAST(payload AS json)) AS payload, queue, priority, status, attempt, retry_count,
       max_retries, timeout, run_at, dispatched_at, lease_expires_at, worker_id, idempotency_key,
       coalesce(result_as_sent, CAST(result AS json)) AS result, last_error, created_at, updated_at, last_attempt_at,
       finished_at, tags, expires_at, backoff, callback_url, callback_job_id, cancel_reason, progress, result_note,
       key, CASE WHEN tenant_id <> 1 THEN (SELECT slug FROM tenants WHERE tenants.id = tenant_id) END AS tenant, submitted_by, group_id,
       cancel_requested_at, request_id, traceparent,
       (SELECT held.key FROM unique_keys AS held WHERE held.job_id = jobs.id LIMIT 1) AS unique_key
  FROM jobs WHERE id = :id
   AND queue = ANY(CAST(:queues AS text[]))  -- reach
   AND tenant_id = :tenant  -- tenant
   AND tenant_id <= :tenant  -- default tenant
   AND (finished_at IS NULL OR (finished_at >= :since AND finished_at < :until));

-- name: find_ended
-- One that has ended, wherever that is kept.
SELECT id, task, coalesce(payload_as_sent, CAST(payload AS json)) AS payload, queue, priority, status, attempt, retry_count,
       max_retries, timeout, run_at, dispatched_at, lease_expires_at, worker_id, idempotency_key,
       coalesce(result_as_sent, CAST(result AS json)) AS result, last_error, created_at, updated_at, last_attempt_at,
       finished_at, tags, expires_at, backoff, callback_url, callback_job_id, cancel_reason, progress, result_note,
       key, CASE WHEN tenant_id <> 1 THEN (SELECT slug FROM tenants WHERE tenants.id = tenant_id) END AS tenant, submitted_by, group_id,
       cancel_requested_at, request_id, traceparent,
       (SELECT held.key FROM unique_keys AS held WHERE held.job_id = jobs.id LIMIT 1) AS unique_key
  FROM jobs WHERE id = :id AND finished_at IS NOT NULL;
