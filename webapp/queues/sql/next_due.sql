-- Seconds until the next undispatched job of these queues is due, 0 when one is overdue, NULL when none is within `within` seconds.
-- The second half reads every job that comes due within that time; where a backlog is due, the first half has answered.
-- Locks nothing.
SELECT CASE WHEN EXISTS (
           SELECT FROM jobs_living WHERE status = 'queued' AND dispatched_at IS NULL AND queue = ANY(:queues)
              AND run_at <= now())
       THEN 0.0 ELSE (
           SELECT extract(epoch FROM min(run_at) - now()) FROM jobs_living
            WHERE status = 'queued' AND dispatched_at IS NULL AND queue = ANY(:queues)
              AND run_at < now() + make_interval(secs => :within))
       END::float8;
