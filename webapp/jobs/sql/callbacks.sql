-- Callbacks: each final job with a `callback_url` gets a job of its own that tells of its end.
--
-- Guard: the job is final and has no callback job yet; `callback_of` of the new row says whose end it tells of.
-- Locks: the rows of the final jobs, those that another session has locked left out.

-- name: take_ended
-- Those that ended at `since` or later. `largest` bytes of a result are given at most; of a larger one it is said that it was left
-- out.
SELECT id, callback_url, status, task, queue, attempt, retry_count, tags,
       CASE WHEN octet_length(CAST(given AS text)) <= :largest THEN given END AS result,
       coalesce(octet_length(CAST(given AS text)) > :largest, false) AS result_omitted,
       result_note, last_error, created_at, finished_at
  FROM jobs, LATERAL (SELECT coalesce(result_as_sent, CAST(result AS json)) AS given) AS result
 WHERE finished_at IS NOT NULL AND finished_at >= :since AND callback_url IS NOT NULL AND callback_job_id IS NULL
 ORDER BY finished_at
 LIMIT :limit FOR UPDATE OF jobs SKIP LOCKED;

-- name: insert
WITH given AS (
    SELECT * FROM unnest(CAST(:ids AS uuid[]), CAST(:callback_ids AS uuid[]), CAST(:payloads AS text[]),
                         CAST(:as_sent AS text[]))
             AS given(id, callback_id, payload, as_sent)),
told AS (
    UPDATE jobs SET callback_job_id = given.callback_id
      FROM given
     WHERE jobs.id = ANY(CAST(:ids AS uuid[])) AND jobs.id = given.id AND jobs.finished_at >= :since
       AND jobs.callback_job_id IS NULL
    RETURNING given.id, given.callback_id, given.payload, given.as_sent, jobs.request_id, jobs.traceparent,
              jobs.tenant_id, jobs.submitted_by)
INSERT INTO jobs_living (id, task, payload, queue, max_retries, timeout, backoff, fingerprint, request_id, traceparent,
                  callback_of, payload_as_sent, tenant_id, submitted_by)
SELECT callback_id, :task, CAST(payload AS jsonb), :queue, :max_retries, :timeout, CAST(:backoff AS jsonb),
       sha256(convert_to(payload, 'UTF8')), request_id, traceparent, id, CAST(as_sent AS json), tenant_id,
       submitted_by
  FROM told;
