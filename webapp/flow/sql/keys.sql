-- Keys of a queue that have limits of their own; one without a row has those of all keys of its queue.
--
-- Guard: the queue's row is locked before (`lock` of queues.sql): it is the gate of every claim from its lanes, so none goes by half of a
-- change.
-- Locks: the key's row, and its lanes.

-- name: find
SELECT queue, key, paused_at, paused_by, paused_why, concurrency, weight, version, rate_limit, rate_per, rate_burst FROM key_limits WHERE queue = :queue AND key = :key;

-- name: page
-- In the order of the keys, after `after`.
SELECT queue, key, paused_at, paused_by, paused_why, concurrency, weight, version, rate_limit, rate_per, rate_burst FROM key_limits
 WHERE queue = :queue AND (CAST(:after AS text) IS NULL OR key > :after)
   AND starts_with(key, :mark)  -- tenant
   AND NOT starts_with(key, chr(31))  -- default tenant
   AND starts_with(key, :mark)  -- tenant
   AND NOT starts_with(key, chr(31))  -- default tenant
 ORDER BY key LIMIT :limit;

-- name: wide
-- A key of which several jobs may run at once.
SELECT key, concurrency FROM key_limits WHERE queue = :queue AND concurrency > 1 ORDER BY key LIMIT 1;

-- name: set
-- One that is paused keeps its first reason.
INSERT INTO key_limits AS known (queue, key, paused_at, paused_by, paused_why, concurrency, weight, rate_limit, rate_per, rate_burst, version)
VALUES (:queue, :key, CASE WHEN :paused THEN now() END, :by, :why, :concurrency, :weight, :rate_limit, :rate_per, :rate_burst, 1)
    ON CONFLICT (queue, key) DO UPDATE
   SET paused_at = CASE WHEN :paused THEN coalesce(known.paused_at, now()) END,
       paused_by = CASE WHEN :paused AND known.paused_at IS NOT NULL THEN known.paused_by ELSE :by END,
       paused_why = CASE WHEN :paused AND known.paused_at IS NOT NULL THEN known.paused_why ELSE :why END,
       concurrency = :concurrency, weight = :weight, rate_limit = :rate_limit, rate_per = :rate_per, rate_burst = :rate_burst,
       version = known.version + 1, updated_at = now()
RETURNING queue, key, paused_at, paused_by, paused_why, concurrency, weight, version, rate_limit, rate_per, rate_burst;

-- name: forget
DELETE FROM key_limits WHERE queue = :queue AND key = :key;

-- name: apply
-- Has the key's lanes go by its limits, or by those of all keys where it has none. A lane that was full, or that waited for what another rate
-- allows, is looked at by the next claim.
UPDATE lanes
   SET weight = :weight, concurrency = :concurrency, rate_limit = :rate_limit, rate_per = :rate_per, rate_burst = :rate_burst, ready_at = NULL,
       turn = greatest(turn, (SELECT mine.turn FROM lane_turns AS mine WHERE mine.queue = lanes.queue AND mine.task = lanes.task)),
       state = CASE WHEN :paused THEN 'paused' WHEN state IN ('paused', 'timed') THEN 'ready' ELSE state END
 WHERE lane = djps_lane(:queue, :key);

-- name: note
-- A queue one of whose keys has limits has them itself: its jobs lie in lanes.
UPDATE queues
   SET is_limited = (:has_limits OR EXISTS (SELECT FROM key_limits WHERE queue = :queue)),
       has_lanes = has_lanes OR :has_limits OR EXISTS (SELECT FROM key_limits WHERE queue = :queue),
       updated_at = now()
 WHERE name = :queue;

-- name: ranked
-- The keys of which most waits or runs in a queue, whether it has limits or not: of its first `most` jobs of each kind, the sent, the others and
-- those that run in any queue. The orders are those of the indexes, so that no other is chosen. The last two columns: how much of it was counted.
WITH queued AS MATERIALIZED (
    (SELECT key FROM jobs_living WHERE queue = :queue AND status = 'queued' AND dispatched_at IS NULL ORDER BY priority DESC, run_at LIMIT :most)
     UNION ALL
    (SELECT key FROM jobs_living WHERE queue = :queue AND status = 'queued' AND dispatched_at IS NOT NULL ORDER BY dispatched_at LIMIT :most)),
processing AS MATERIALIZED (
    SELECT key, worker_id, queue FROM jobs_living WHERE status = 'processing' ORDER BY lease_expires_at LIMIT :most),
figures AS (
    SELECT key, coalesce(waits.jobs, 0) AS waiting, coalesce(runs.processes, 0) AS running
      FROM (SELECT key, count(*) AS jobs FROM queued WHERE key IS NOT NULL
               AND NOT starts_with(key, chr(31))  -- default tenant
             GROUP BY key) AS waits
      FULL JOIN (SELECT key, count(DISTINCT worker_id) AS processes FROM processing
                  WHERE queue = :queue AND key IS NOT NULL
                    AND NOT starts_with(key, chr(31))  -- default tenant
                  GROUP BY key) AS runs USING (key)),
first AS (
    SELECT key, waiting, running FROM figures
     WHERE CASE WHEN :by_running THEN running ELSE waiting END > 0
     ORDER BY CASE WHEN :by_running THEN running ELSE waiting END DESC, key LIMIT :limit)
SELECT :queue, first.key, paused_at, paused_by, paused_why, concurrency, coalesce(weight, 1), coalesce(version, 0), rate_limit, rate_per,
       rate_burst, waiting, running,
       (SELECT count(*) FROM queued), (SELECT count(*) FROM processing)
  FROM (VALUES (1)) AS always LEFT JOIN first ON true LEFT JOIN key_limits AS own ON own.queue = :queue AND own.key = first.key
 ORDER BY CASE WHEN :by_running THEN running ELSE waiting END DESC, first.key;

-- name: ranked_of_tenant
-- The same of the jobs of a tenant beside the default one.
WITH queued AS MATERIALIZED (
    SELECT key FROM jobs_living
     WHERE status = 'queued' AND tenant_id <> 1 AND tenant_id = CAST(:tenant AS int) AND queue = :queue LIMIT :most),
processing AS MATERIALIZED (
    SELECT key, worker_id, queue FROM jobs_living WHERE status = 'processing' AND tenant_id = CAST(:tenant AS int)
     ORDER BY lease_expires_at LIMIT :most),
figures AS (
    SELECT key, coalesce(waits.jobs, 0) AS waiting, coalesce(runs.processes, 0) AS running
      FROM (SELECT key, count(*) AS jobs FROM queued WHERE key IS NOT NULL
             GROUP BY key) AS waits
      FULL JOIN (SELECT key, count(DISTINCT worker_id) AS processes FROM processing
                  WHERE queue = :queue AND key IS NOT NULL
                  GROUP BY key) AS runs USING (key)),
first AS (
    SELECT key, waiting, running FROM figures
     WHERE CASE WHEN :by_running THEN running ELSE waiting END > 0
     ORDER BY CASE WHEN :by_running THEN running ELSE waiting END DESC, key LIMIT :limit)
SELECT :queue, first.key, paused_at, paused_by, paused_why, concurrency, coalesce(weight, 1), coalesce(version, 0), rate_limit, rate_per,
       rate_burst, waiting, running,
       (SELECT count(*) FROM queued), (SELECT count(*) FROM processing)
  FROM (VALUES (1)) AS always LEFT JOIN first ON true LEFT JOIN key_limits AS own ON own.queue = :queue AND own.key = first.key
 ORDER BY CASE WHEN :by_running THEN running ELSE waiting END DESC, first.key;

-- name: counts
-- What waits of a key, counted up to `most`, and how many processes run its jobs.
SELECT (SELECT count(*) FROM (
           SELECT FROM jobs_living WHERE lane = djps_lane(:queue, :key) AND status = 'queued' LIMIT :most) AS counted) AS waiting,
       djps_lane_holders(djps_lane(:queue, :key), '', CAST(:most AS int)) AS running;
