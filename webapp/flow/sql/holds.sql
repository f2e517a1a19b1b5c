-- What may hold a due job that lies in a lane, or is to be filed into one; for its explanation. From the rows that `djps_take` reads, without
-- its gate: a moment later it may be otherwise.
--
-- Locks nothing. Steps of an index up to the limits, lanes and jobs counted to `most`.

-- name: around
SELECT (q.is_limited IS TRUE OR t.is_limited IS TRUE) AND job.lane IS NULL AS to_be_filed,
       job.lane IS NOT NULL AS is_in_lane,
       q.concurrency, djps_queue_holders(q.name, '', q.concurrency),
       t.concurrency, djps_task_holders(t.task, '', t.concurrency),
       key_slots.most, djps_lane_holders(job.lane, '', key_slots.most),
       q.rate_limit, q.rate_per, q.rate_burst, q.next_start,
       t.rate_limit, t.rate_per, t.rate_burst, t.next_start,
       coalesce(k.rate_limit, q.key_rate_limit), coalesce(k.rate_per, q.key_rate_per),
       CASE WHEN k.rate_limit IS NULL THEN q.key_rate_burst ELSE k.rate_burst END, coalesce(rate.next_start, 0),
       k.paused_at, k.paused_by, k.paused_why,
       (SELECT count(*) FROM (SELECT FROM lanes AS other
         WHERE other.queue = job.queue AND other.task = job.task AND other.state = 'ready' AND other.turn < mine.turn
           AND starts_with(other.key, :mark)  -- tenant
           AND NOT starts_with(other.key, chr(31))  -- default tenant
         LIMIT :most) AS counted),
       (SELECT CAST(sum(jobs) AS bigint)
          FROM generate_series(CASE WHEN q.ageing IS NULL THEN CAST(job.priority AS int) ELSE 0 END, :highest) AS more, LATERAL (
           SELECT count(*) AS jobs FROM (SELECT FROM jobs_living AS other
            WHERE other.lane = job.lane AND other.task = job.task AND other.status = 'queued' AND other.priority = more
              AND other.run_at < CASE WHEN more = job.priority THEN job.run_at
                                      WHEN q.ageing IS NULL THEN now() + interval '1 microsecond'
                                      ELSE least(now() + interval '1 microsecond',
                                                 job.run_at + (more - job.priority) * q.ageing * interval '1 second') END
            LIMIT :most) AS of_priority) AS waiting
         WHERE q.key_order IS DISTINCT FROM 'fifo'),
       extract(epoch FROM now())::float8, ahead.id, ahead.status, ahead.run_at
  FROM jobs_living AS job
  LEFT JOIN queues AS q ON q.name = job.queue
  LEFT JOIN task_limits AS t ON t.task = job.task
  LEFT JOIN key_limits AS k ON k.queue = job.queue AND k.key = job.key
  LEFT JOIN lanes AS mine ON mine.lane = job.lane AND mine.task = job.task
  LEFT JOIN lane_rates AS rate ON rate.lane = job.lane
  LEFT JOIN LATERAL (
       SELECT coalesce(k.concurrency, q.key_concurrency) AS most WHERE q.key_order IS DISTINCT FROM 'fifo') AS key_slots ON true
  LEFT JOIN LATERAL (
       -- Of a key in order: the job that runs, or else the one that comes first.
       (SELECT held.id, held.status, held.run_at FROM jobs_living AS held
         WHERE held.lane = job.lane AND held.status = 'processing' LIMIT 1)
        UNION ALL
       (SELECT first.id, 'queued', first.run_at FROM djps_first_in_order(job.lane, now()) AS first WHERE first.id <> job.id)
       LIMIT 1) AS ahead ON q.key_order = 'fifo'
 WHERE job.id = :id AND job.status = 'queued';

-- name: holders_of_queue
-- The processes that hold its slots, each with one of its jobs; of another tenant none is named.
WITH RECURSIVE holders AS (
    (SELECT worker_id, id FROM jobs_living
      WHERE queue = :queue AND status = 'processing' AND lane IS NOT NULL
        AND tenant_id = :tenant  -- tenant
        AND tenant_id <= :tenant  -- default tenant
      ORDER BY worker_id LIMIT 1)
    UNION ALL
    SELECT later.worker_id, later.id FROM holders CROSS JOIN LATERAL (
        SELECT worker_id, id FROM jobs_living
         WHERE queue = :queue AND status = 'processing' AND lane IS NOT NULL AND worker_id > holders.worker_id
           AND tenant_id = :tenant  -- tenant
           AND tenant_id <= :tenant  -- default tenant
         ORDER BY worker_id LIMIT 1) AS later)
SELECT worker_id, id FROM holders LIMIT :most;

-- name: holders_of_task
-- A task's slots are those of all queues: of other queues than these their holders are not named.
WITH RECURSIVE holders AS (
    (SELECT worker_id, id FROM jobs_living
      WHERE task = :task AND status = 'processing' AND lane IS NOT NULL
        AND queue = ANY(CAST(:queues AS text[]))  -- reach
        AND tenant_id = :tenant  -- tenant
        AND tenant_id <= :tenant  -- default tenant
      ORDER BY worker_id LIMIT 1)
    UNION ALL
    SELECT later.worker_id, later.id FROM holders CROSS JOIN LATERAL (
        SELECT worker_id, id FROM jobs_living
         WHERE task = :task AND status = 'processing' AND lane IS NOT NULL AND worker_id > holders.worker_id
           AND queue = ANY(CAST(:queues AS text[]))  -- reach
           AND tenant_id = :tenant  -- tenant
           AND tenant_id <= :tenant  -- default tenant
         ORDER BY worker_id LIMIT 1) AS later)
SELECT worker_id, id FROM holders LIMIT :most;

-- name: holders_of_key
WITH RECURSIVE holders AS (
    (SELECT worker_id, id FROM jobs_living
      WHERE lane = djps_lane(:queue, :key) AND status = 'processing' ORDER BY worker_id LIMIT 1)
    UNION ALL
    SELECT later.worker_id, later.id FROM holders CROSS JOIN LATERAL (
        SELECT worker_id, id FROM jobs_living
         WHERE lane = djps_lane(:queue, :key) AND status = 'processing' AND worker_id > holders.worker_id
         ORDER BY worker_id LIMIT 1) AS later)
SELECT worker_id, id FROM holders LIMIT :most;
