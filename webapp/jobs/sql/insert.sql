-- Stores jobs: one, or a batch.
--
-- Lines that end with `-- keyed`, `-- terms`, `-- as sent`, `-- laned` or `-- owned` are left out where no job has an idempotency key, options
-- of its own, a payload that `jsonb` would give back otherwise, a lane, a group, or was submitted with a key of the API: a plain job pays for none. As
-- it stands here the file has it all.
--
-- Guard: a key is taken in the statement that stores its job, so there is never one without the other. A key that lives belongs
-- to its owner, and nothing is stored for it. A job whose id is there already was stored by a first try of the same request.
-- Locks: keys, in their order, so that two batches with the same keys never wait for each other in a circle; the jobs are new.

-- name: one
WITH mine AS (                                                                                                    -- keyed
    INSERT INTO idempotency_keys AS taken (key, fingerprint, job_id, expires_at)                                    -- keyed
    VALUES (:idempotency_key, :fingerprint, :id, now() + make_interval(secs => :key_ttl))                           -- keyed
    ON CONFLICT (key) DO UPDATE SET fingerprint = excluded.fingerprint, job_id = excluded.job_id,                   -- keyed
                created_at = now(), expires_at = excluded.expires_at                                                -- keyed
          WHERE taken.expires_at <= now()                                                                           -- keyed
    RETURNING job_id)                                                                                               -- keyed
INSERT INTO jobs_living (id, task, payload, queue, max_retries, timeout, idempotency_key, fingerprint, request_id, traceparent,
                  priority, run_at, expires_at, backoff, tags, callback_url, key,                                   -- terms
                  payload_as_sent,                                                                                  -- as sent
                  lane,                                                                                             -- laned
                  tenant_id, submitted_by, group_id,                                                                -- owned
                  dispatched_at)
SELECT :id, :task, CAST(:payload AS jsonb), :queue, :max_retries, :timeout, :idempotency_key, :fingerprint,
       :request_id, :traceparent,
       :priority, greatest(CAST(:run_at AS timestamptz), now() + make_interval(secs => :delay)),                    -- terms
       coalesce(CAST(:expires_at AS timestamptz),                                                                   -- terms
                greatest(CAST(:run_at AS timestamptz), now() + make_interval(secs => :delay))                       -- terms
                + make_interval(secs => :expires_in)),                                                              -- terms
       CAST(:backoff AS jsonb), CAST(:tags AS text[]), :callback_url, :job_key,                                     -- terms
       CAST(:as_sent AS json),                                                                                      -- as sent
       CAST(:lane AS bigint),                                                                                       -- laned
       CAST(:tenant AS int), CAST(:submitted_by AS int), CAST(:group AS uuid),                                      -- owned
       CASE WHEN CAST(:lane AS bigint) IS NOT NULL THEN 'infinity'::timestamptz ELSE                                -- laned
       CASE WHEN :dispatched
             AND greatest(CAST(:run_at AS timestamptz), now() + make_interval(secs => :delay)) <= now()             -- terms
            THEN now() END
       END                                                                                                          -- laned
  FROM mine                                                                                                         -- keyed
ON CONFLICT DO NOTHING
RETURNING created_at, dispatched_at
          , run_at, expires_at                                                                                      -- terms
;

-- name: many
WITH given AS MATERIALIZED (
    SELECT * FROM unnest(
        CAST(:ids AS uuid[]), CAST(:tasks AS text[]), CAST(:payloads AS text[]), CAST(:queues AS text[]),
        CAST(:max_retries AS int[]), CAST(:timeouts AS float8[]), CAST(:keys AS text[]),
        CAST(:priorities AS int[]), CAST(:run_ats AS timestamptz[]), CAST(:delays AS float8[]),                     -- terms
        CAST(:expiries AS timestamptz[]), CAST(:expires_in AS float8[]), CAST(:backoffs AS text[]),                 -- terms
        CAST(:tags AS text[]), CAST(:callback_urls AS text[]), CAST(:job_keys AS text[]),                           -- terms
        CAST(:lanes AS bigint[]),                                                                                   -- laned
        CAST(:as_sent AS text[]),                                                                                   -- as sent
        CAST(:fingerprints AS text[]))
        AS given(id, task, payload, queue, max_retries, timeout, key,
                 priority, run_at, delay, expires_at, expires_in, backoff, tags, callback_url, job_key,             -- terms
                 lane,                                                                                              -- laned
                 as_sent,                                                                                           -- as sent
                 fingerprint))
, mine AS (                                                                                                         -- keyed
    INSERT INTO idempotency_keys AS taken (key, fingerprint, job_id, expires_at)                                    -- keyed
    SELECT DISTINCT ON (key) key, decode(fingerprint, 'hex'), id, now() + make_interval(secs => :key_ttl)           -- keyed
      FROM given WHERE key IS NOT NULL                                                                              -- keyed
     ORDER BY key, id                                                                                               -- keyed
    ON CONFLICT (key) DO UPDATE SET fingerprint = excluded.fingerprint, job_id = excluded.job_id,                   -- keyed
                created_at = now(), expires_at = excluded.expires_at                                                -- keyed
          WHERE taken.expires_at <= now()                                                                           -- keyed
    RETURNING job_id)                                                                                               -- keyed
INSERT INTO jobs_living (id, task, payload, queue, max_retries, timeout, idempotency_key, fingerprint, request_id, traceparent,
                  priority, run_at, expires_at, backoff, tags, callback_url, key,                                   -- terms
                  payload_as_sent,                                                                                  -- as sent
                  lane,                                                                                             -- laned
                  tenant_id, submitted_by, group_id,                                                                -- owned
                  dispatched_at)
SELECT id, task, CAST(payload AS jsonb), queue, max_retries, timeout, key, decode(fingerprint, 'hex'),
       :request_id, :traceparent,
       priority, greatest(run_at, now() + make_interval(secs => delay)),                                            -- terms
       coalesce(expires_at, greatest(run_at, now() + make_interval(secs => delay))                                  -- terms
                            + make_interval(secs => expires_in)),                                                   -- terms
       CAST(backoff AS jsonb), ARRAY(SELECT jsonb_array_elements_text(CAST(tags AS jsonb))), callback_url, job_key, -- terms
       CAST(as_sent AS json),                                                                                       -- as sent
       lane,                                                                                                        -- laned
       CAST(:tenant AS int), CAST(:submitted_by AS int), CAST(:group AS uuid),                                      -- owned
       CASE WHEN lane IS NOT NULL THEN 'infinity'::timestamptz ELSE                                                 -- laned
       CASE WHEN :dispatched
             AND greatest(run_at, now() + make_interval(secs => delay)) <= now()                                    -- terms
            THEN now() END
       END                                                                                                          -- laned
  FROM given
 WHERE key IS NULL OR id IN (SELECT job_id FROM mine)                                                               -- keyed
ON CONFLICT DO NOTHING
RETURNING id, dispatched_at IS NOT NULL;
