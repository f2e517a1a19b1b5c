-- How much waits and runs, and how many dead letters are open, for the gauges: through the index that has the rows together, and
-- no further than `most` of a name, so the time is bounded however many millions there are. Beyond it an estimate stands in.
-- Locks nothing. The orders are those of the indexes, so that no other is chosen.

-- name: bound
-- Before the others, in their transaction. Statistics of a table that has just filled up say that it is empty; by them whole
-- tables would be read and sorted.
SELECT set_config(name, value, true)
  FROM (VALUES ('statement_timeout', '1000'), ('lock_timeout', '200'), ('jit', 'off'), ('enable_seqscan', 'off'),
               ('enable_bitmapscan', 'off'), ('enable_sort', 'off'), ('enable_incremental_sort', 'off'))
       AS settings(name, value);

-- name: queues
-- Queues with jobs that wait, 250 at most: a step into the index for each queue, and not for each row.
(WITH RECURSIVE seen AS (
    (SELECT queue AS name FROM jobs_living WHERE status = 'queued' AND dispatched_at IS NULL ORDER BY queue LIMIT 1)
    UNION ALL
    SELECT later.name FROM seen CROSS JOIN LATERAL (
        SELECT queue AS name FROM jobs_living WHERE status = 'queued' AND dispatched_at IS NULL AND queue > seen.name
         ORDER BY queue LIMIT 1) AS later)
SELECT name FROM seen LIMIT 250)
UNION
(WITH RECURSIVE seen AS (
    (SELECT queue AS name FROM jobs_living WHERE status = 'queued' AND dispatched_at IS NOT NULL ORDER BY queue LIMIT 1)
    UNION ALL
    SELECT later.name FROM seen CROSS JOIN LATERAL (
        SELECT queue AS name FROM jobs_living WHERE status = 'queued' AND dispatched_at IS NOT NULL AND queue > seen.name
         ORDER BY queue LIMIT 1) AS later)
SELECT name FROM seen LIMIT 250);

-- name: tasks
-- Tasks with open dead letters, 250 at most.
WITH RECURSIVE seen AS (
    (SELECT task AS name FROM dead_letters
      WHERE requeued_at IS NULL AND discarded_at IS NULL AND task IS NOT NULL ORDER BY task LIMIT 1)
    UNION ALL
    SELECT later.name FROM seen CROSS JOIN LATERAL (
        SELECT task AS name FROM dead_letters
         WHERE requeued_at IS NULL AND discarded_at IS NULL AND task IS NOT NULL AND task > seen.name
         ORDER BY task LIMIT 1) AS later)
SELECT name FROM seen LIMIT 250;

-- name: depths
-- Of each queue: jobs that were not sent, jobs that were, those of both that are due, and for how long the oldest of these has
-- been. Within a priority what is due comes first, so what is due later is never looked at.
SELECT name,
       (SELECT count(*) FROM (
           SELECT FROM jobs_living WHERE status = 'queued' AND dispatched_at IS NULL AND queue = name
            ORDER BY priority DESC, run_at LIMIT :most) AS counted),
       (SELECT count(*) FROM (
           SELECT FROM jobs_living WHERE status = 'queued' AND dispatched_at IS NOT NULL AND queue = name
            ORDER BY dispatched_at LIMIT :most) AS counted),
       (SELECT count(*) FROM (
           SELECT FROM generate_series(0, 9) AS level CROSS JOIN LATERAL (
               SELECT FROM jobs_living
                WHERE status = 'queued' AND dispatched_at IS NULL AND queue = name AND priority = level AND run_at <= now()
                ORDER BY run_at LIMIT :most) AS due LIMIT :most) AS counted),
       (SELECT count(*) FROM (
           SELECT FROM jobs_living
            WHERE status = 'queued' AND dispatched_at IS NOT NULL AND queue = name AND run_at <= now()
            ORDER BY dispatched_at LIMIT :most) AS counted),
       extract(epoch FROM now() - least(
           (SELECT min(due.run_at) FROM generate_series(0, 9) AS level CROSS JOIN LATERAL (
                SELECT run_at FROM jobs_living
                 WHERE status = 'queued' AND dispatched_at IS NULL AND queue = name AND priority = level AND run_at <= now()
                 ORDER BY run_at LIMIT 1) AS due),
           (SELECT min(run_at) FROM (
                SELECT run_at FROM jobs_living
                 WHERE status = 'queued' AND dispatched_at IS NOT NULL AND queue = name AND run_at <= now()
                 ORDER BY dispatched_at LIMIT :most) AS due)))::float8
  FROM unnest(CAST(:names AS text[])) AS name;

-- name: guest_queues
-- Queues with waiting jobs of tenants beside the default one, 250 at most.
WITH RECURSIVE seen AS (
    (SELECT queue AS name FROM jobs_living WHERE status = 'queued' AND tenant_id <> 1 ORDER BY queue LIMIT 1)
    UNION ALL
    SELECT later.name FROM seen CROSS JOIN LATERAL (
        SELECT queue AS name FROM jobs_living WHERE status = 'queued' AND tenant_id <> 1 AND queue > seen.name
         ORDER BY queue LIMIT 1) AS later)
SELECT name FROM seen LIMIT 250;

-- name: depths_of_default
-- Of each queue that the default tenant shares with others, of its first jobs of each kind: its own that were not sent, those that were, those
-- of both that are due, and for how long the oldest of these has been; and how many were looked at, which is not told.
SELECT name,
       count(*) FILTER (WHERE dispatched_at IS NULL AND tenant_id = 1),
       count(*) FILTER (WHERE dispatched_at IS NOT NULL AND tenant_id = 1),
       count(*) FILTER (WHERE run_at <= now() AND tenant_id = 1),
       extract(epoch FROM now() - min(run_at) FILTER (WHERE run_at <= now() AND tenant_id = 1))::float8,
       greatest(count(*) FILTER (WHERE dispatched_at IS NULL), count(*) FILTER (WHERE dispatched_at IS NOT NULL))
  FROM unnest(CAST(:names AS text[])) AS name CROSS JOIN LATERAL (
       (SELECT dispatched_at, run_at, tenant_id FROM jobs_living
         WHERE status = 'queued' AND dispatched_at IS NULL AND queue = name ORDER BY priority DESC, run_at LIMIT :most)
        UNION ALL
       (SELECT dispatched_at, run_at, tenant_id FROM jobs_living
         WHERE status = 'queued' AND dispatched_at IS NOT NULL AND queue = name ORDER BY dispatched_at LIMIT :most)) AS counted
 GROUP BY name;

-- name: depths_of_tenant
-- The same of another tenant, of its own jobs.
SELECT name, count(*) FILTER (WHERE dispatched_at IS NULL), count(*) FILTER (WHERE dispatched_at IS NOT NULL),
       count(*) FILTER (WHERE run_at <= now()),
       extract(epoch FROM now() - min(run_at) FILTER (WHERE run_at <= now()))::float8, count(*)
  FROM unnest(CAST(:names AS text[])) AS name CROSS JOIN LATERAL (
       SELECT dispatched_at, run_at FROM jobs_living
        WHERE status = 'queued' AND tenant_id <> 1 AND queue = name AND tenant_id = CAST(:tenant AS int) LIMIT :most) AS counted
 GROUP BY name;

-- name: running
SELECT queue, count(*)
  FROM (SELECT queue FROM jobs_living
         WHERE status = 'processing'
           AND queue = ANY(CAST(:queues AS text[]))  -- reach
           AND tenant_id = :tenant  -- tenant
           AND tenant_id <= :tenant  -- default tenant
         ORDER BY lease_expires_at LIMIT :most) AS running
 GROUP BY 1;

-- name: open_dead_letters
-- Of each task, and under '' those of no task.
SELECT name, (SELECT count(*) FROM (
           SELECT FROM dead_letters
            WHERE requeued_at IS NULL AND discarded_at IS NULL AND task = name ORDER BY fingerprint LIMIT :most) AS counted)
  FROM unnest(CAST(:names AS text[])) AS name
 UNION ALL
SELECT '', (SELECT count(*) FROM (
           SELECT FROM dead_letters
            WHERE requeued_at IS NULL AND discarded_at IS NULL AND task IS NULL ORDER BY fingerprint LIMIT :most) AS counted);

-- name: estimate_queued
EXPLAIN (FORMAT JSON) SELECT FROM jobs_living WHERE status = 'queued' AND queue = :name;

-- name: estimate_due
EXPLAIN (FORMAT JSON) SELECT FROM jobs_living WHERE status = 'queued' AND queue = :name AND run_at <= now();

-- name: estimate_dead_letters
EXPLAIN (FORMAT JSON) SELECT FROM dead_letters WHERE requeued_at IS NULL AND discarded_at IS NULL AND task = :name;
