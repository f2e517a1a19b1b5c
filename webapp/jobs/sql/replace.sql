-- Makes jobs that were never started what later submissions of their unique keys ask for: payload, task, queue and every option. Their
-- ids, the moments of their submission, their idempotency keys and the fingerprints of these stay.
--
-- Guard: the job is queued and was never started; one that has begun is never changed. A message about it that waits in Redis claims it as it
-- is then, and not before its `run_at`.
-- Locks: unique keys before (`lock` of unique.sql), then jobs in the order of their ids. A claim that goes on meanwhile is waited for, and
-- seen by the statement that judges the holders after `hold`. (Ids are in the same order as their texts, for which no index reads the table.)

-- name: hold
-- Until the transaction ends, the holders of these unique keys that were never started are not either.
SELECT FROM jobs_living AS job
 WHERE id = ANY(ARRAY(SELECT job_id FROM unique_keys WHERE key = ANY(CAST(:keys AS text[])))) AND status = 'queued' AND attempt = 0
 ORDER BY id FOR NO KEY UPDATE;

-- name: replace
-- A job that was sent stays sent where it is due as before and waits in the same place: another message would wait behind the first one. A lane
-- is called where it may have to start sooner than it knows. Answers whether workers are to be told, and what a submission does not know of the job.
WITH given AS MATERIALIZED (
    SELECT * FROM unnest(
        CAST(:ids AS uuid[]), CAST(:tasks AS text[]), CAST(:payloads AS text[]), CAST(:as_sent AS text[]), CAST(:queues AS text[]),
        CAST(:max_retries AS int[]), CAST(:timeouts AS float8[]), CAST(:priorities AS int[]), CAST(:run_ats AS timestamptz[]),
        CAST(:delays AS float8[]), CAST(:max_waits AS float8[]), CAST(:expiries AS timestamptz[]), CAST(:expires_in AS float8[]),
        CAST(:backoffs AS text[]), CAST(:tags AS text[]), CAST(:callback_urls AS text[]), CAST(:job_keys AS text[]),
        CAST(:lanes AS bigint[]))
        AS given(id, task, payload, as_sent, queue, max_retries, timeout, priority, run_at, delay, max_wait, expires_at, expires_in,
                 backoff, tags, callback_url, job_key, lane)),
due AS MATERIALIZED (
    SELECT job.id, least(greatest(given.run_at, now() + make_interval(secs => given.delay)),
                         job.created_at + make_interval(secs => given.max_wait)) AS run_at,
           job.lane IS NULL AND job.dispatched_at < 'infinity' AND job.queue = given.queue AND job.priority = given.priority AS is_sent,
           job.lane IS DISTINCT FROM given.lane OR job.task <> given.task OR job.timeout < given.timeout AS is_elsewhere,
           job.run_at AS run_before, job.dispatched_at
      FROM given JOIN jobs_living AS job ON job.id = ANY(ARRAY[given.id])
     WHERE job.status = 'queued' AND job.attempt = 0
     ORDER BY CAST(job.id AS text) FOR NO KEY UPDATE OF job),
changed AS (
    UPDATE jobs_living AS job
       SET task = given.task, payload = CAST(given.payload AS jsonb), payload_as_sent = CAST(given.as_sent AS json), queue = given.queue,
           max_retries = given.max_retries, timeout = given.timeout, priority = given.priority, run_at = due.run_at,
           expires_at = coalesce(given.expires_at, due.run_at + make_interval(secs => given.expires_in)),
           backoff = CAST(given.backoff AS jsonb), tags = ARRAY(SELECT jsonb_array_elements_text(CAST(given.tags AS jsonb))),
           callback_url = given.callback_url, key = given.job_key, lane = given.lane, request_id = :request_id,
           traceparent = :traceparent, updated_at = now(),
           dispatched_at = CASE WHEN given.lane IS NOT NULL THEN 'infinity'
                                WHEN due.run_at > now() THEN NULL
                                WHEN due.is_sent THEN due.dispatched_at
                                WHEN :dispatched THEN now() END
      FROM given JOIN due ON due.id = given.id
     WHERE job.id = ANY(ARRAY[given.id]) AND job.status = 'queued' AND job.attempt = 0
    RETURNING job.id, job.queue, job.lane, job.task, job.key, job.timeout, job.created_at, job.updated_at, job.run_at, job.expires_at,
              job.dispatched_at, job.idempotency_key,
              CASE WHEN job.lane IS NOT NULL THEN due.is_elsewhere OR job.run_at < due.run_before
                   ELSE job.dispatched_at IS NOT NULL AND due.is_sent IS NOT TRUE END AS is_told),
called AS (
    INSERT INTO lane_wakeups (queue, lane, task, key, timeout)
    SELECT queue, lane, task, coalesce(key, ''), timeout FROM changed WHERE lane IS NOT NULL AND is_told)
SELECT id, is_told, created_at, updated_at, run_at, expires_at, dispatched_at, idempotency_key FROM changed;
