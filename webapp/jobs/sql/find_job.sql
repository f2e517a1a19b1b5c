-- One job, with the fields of a `JobRow` in its order. Reads the primary key; locks nothing.
SELECT id, task, coalesce(payload_as_sent, CAST(payload AS json)) AS payload, queue, priority, status, attempt, retry_count,
       max_retries, timeout, run_at, dispatched_at, lease_expires_at, worker_id, idempotency_key,
       coalesce(result_as_sent, CAST(result AS json)) AS result, last_error, created_at, updated_at, last_attempt_at,
       finished_at, tags, expires_at, backoff, callback_url, callback_job_id, cancel_reason, progress, result_note
  FROM jobs WHERE id = :id;
