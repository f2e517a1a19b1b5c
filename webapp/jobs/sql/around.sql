-- What is around a job that waits, for its explanation: the time, whether its cancellation was asked, whether its newest attempt's
-- end is on record, and how many jobs of its queue are before it, counted no further than `most` of each priority.
-- Reads indexes; locks nothing.
SELECT now(), (SELECT cancel_requested_at IS NOT NULL FROM jobs_living WHERE id = :id),
       EXISTS (SELECT FROM job_attempts WHERE job_id = :id AND attempt = :attempt),
       (SELECT CAST(sum(jobs) AS bigint) FROM generate_series(CAST(:priority AS int), :highest) AS more, LATERAL (
           SELECT count(*) AS jobs FROM (SELECT 1 FROM jobs_living
            WHERE queue = :queue AND status = 'queued' AND dispatched_at IS NULL AND priority = more
              AND run_at < CASE WHEN more > :priority THEN now() + interval '1 microsecond'
                                ELSE least(CAST(:run_at AS timestamptz), now()) END
            LIMIT :most) AS of_priority) AS waiting)
     + (SELECT count(*) FROM (SELECT 1 FROM jobs_living
         WHERE queue = :queue AND status = 'queued' AND dispatched_at < 'infinity' AND run_at <= now()
           AND (priority > :priority OR (priority = :priority AND run_at < :run_at))
         LIMIT :most) AS sent);
