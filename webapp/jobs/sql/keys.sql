-- Idempotency keys: who owns them, and the end of those that have run out.
-- Guard: a key that has run out belongs to no one. Locks: `prune` the rows of the keys, those that another session has locked
-- left out; the others none.

-- name: owner
-- The fingerprint of the owner's request, and its job with the fields of a `JobRow` in its order: NULL when it was pruned since.
SELECT taken.job_id, taken.fingerprint, jobs.id, jobs.task,
       coalesce(jobs.payload_as_sent, CAST(jobs.payload AS json)) AS payload, jobs.queue, jobs.priority, jobs.status,
       jobs.attempt, jobs.retry_count, jobs.max_retries, jobs.timeout, jobs.run_at, jobs.dispatched_at, jobs.lease_expires_at,
       jobs.worker_id, jobs.idempotency_key, coalesce(jobs.result_as_sent, CAST(jobs.result AS json)) AS result, jobs.last_error,
       jobs.created_at, jobs.updated_at, jobs.last_attempt_at, jobs.finished_at, jobs.tags, jobs.expires_at, jobs.backoff,
       jobs.callback_url, jobs.callback_job_id, jobs.cancel_reason, jobs.progress, jobs.result_note
  FROM idempotency_keys AS taken LEFT JOIN jobs ON jobs.id = taken.job_id
 WHERE taken.key = :key AND taken.expires_at > now();

-- name: owners
SELECT key, job_id, fingerprint FROM idempotency_keys WHERE key = ANY(CAST(:keys AS text[])) AND expires_at > now();

-- name: prune
DELETE FROM idempotency_keys WHERE key IN (
    SELECT key FROM idempotency_keys WHERE expires_at <= now()
     ORDER BY expires_at LIMIT :limit FOR UPDATE SKIP LOCKED);
