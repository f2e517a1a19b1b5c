-- Moves a job to the dead letter queue once its last attempt is on record.
--
-- Guard: the job is processing, `attempt` is its newest, and the end of it, failed or lost, is on record. That record is what
-- allows the move, so a forged or late message moves nothing.
-- Locks: the job's row; the dead letter is new.

-- name: last_attempt
SELECT a.death_reason, a.error_type, a.error_message, j.task, j.queue, j.request_id, j.traceparent,
       CASE WHEN j.tenant_id <> 1 THEN (SELECT slug FROM tenants WHERE tenants.id = j.tenant_id) END AS tenant
  FROM jobs_living j JOIN job_attempts a ON a.job_id = j.id AND a.attempt = j.attempt
 WHERE j.id = :id AND j.status = 'processing' AND j.attempt = :attempt AND a.outcome IN ('failed', 'lost')
   FOR UPDATE OF j;

-- name: move
WITH moved AS (
    UPDATE jobs SET status = 'failed', finished_at = now(), updated_at = now(), lease_expires_at = NULL, worker_id = NULL
     WHERE id = :id AND finished_at IS NULL AND status = 'processing' AND attempt = :attempt
    RETURNING id, task, queue, tenant_id)
INSERT INTO dead_letters (job_id, reason, error_type, error_message, fingerprint, task, queue, tenant_id)
SELECT id, :reason, :error_type, :error_message, :fingerprint, task, queue, tenant_id FROM moved;
