-- What is around a job that waits, for its explanation: the time, whether its cancellation was asked, whether its newest attempt's
-- end is on record, and how many jobs of its queue are before it, counted no further than `most` of each priority.
-- Reads indexes; locks nothing.

-- name: around
-- Of a tenant that shares its queue with others, its own of those that are counted.
SELECT now(), (SELECT cancel_requested_at IS NOT NULL FROM jobs_living WHERE id = :id),
       EXISTS (SELECT FROM job_attempts WHERE job_id = :id AND attempt = :attempt),
       (SELECT CAST(sum(jobs) AS bigint) FROM generate_series(CAST(:priority AS int), :highest) AS more, LATERAL (
           SELECT count(*) AS jobs FROM (SELECT 1
                  , tenant_id  -- default tenant
             FROM jobs_living
            WHERE queue = :queue AND status = 'queued' AND dispatched_at IS NULL AND priority = more
              AND run_at < CASE WHEN more > :priority THEN now() + interval '1 microsecond'
                                ELSE least(CAST(:run_at AS timestamptz), now()) END
            LIMIT :most) AS of_priority
            WHERE tenant_id <= :tenant  -- default tenant
           ) AS waiting)
     + (SELECT count(*) FROM (SELECT 1
                  , tenant_id  -- default tenant
          FROM jobs_living
         WHERE queue = :queue AND status = 'queued' AND dispatched_at < 'infinity' AND run_at <= now()
           AND (priority > :priority OR (priority = :priority AND run_at < :run_at))
         LIMIT :most) AS sent
         WHERE tenant_id <= :tenant  -- default tenant
       );

-- name: around_of_tenant
-- For a tenant beside the default one, by its own jobs that wait in the queue, a hundred thousand at most: whatever others have there.
SELECT now(), (SELECT cancel_requested_at IS NOT NULL FROM jobs_living WHERE id = :id),
       EXISTS (SELECT FROM job_attempts WHERE job_id = :id AND attempt = :attempt),
       (SELECT least(count(*), :most)
          FROM (SELECT priority, run_at, dispatched_at FROM jobs_living
                 WHERE status = 'queued' AND tenant_id <> 1 AND tenant_id = :tenant AND queue = :queue LIMIT 100000) AS mine
         WHERE run_at <= now() AND (dispatched_at IS NULL OR dispatched_at < 'infinity')
           AND (priority > :priority OR (priority = :priority AND run_at < :run_at)));
