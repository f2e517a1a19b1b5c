-- Keys of a queue that have limits of their own; one without a row has those of all keys of its queue.
--
-- Guard: the queue's row is locked before (`lock` of queues.sql): it is the gate of every claim from its lanes, so none goes by half of a
-- change.
-- Locks: the key's row, and its lanes.

-- name: find
SELECT queue, key, paused_at, paused_by, paused_why, concurrency, weight, version FROM key_limits WHERE queue = :queue AND key = :key;

-- name: page
-- In the order of the keys, after `after`.
SELECT queue, key, paused_at, paused_by, paused_why, concurrency, weight, version FROM key_limits
 WHERE queue = :queue AND (CAST(:after AS text) IS NULL OR key > :after)
 ORDER BY key LIMIT :limit;

-- name: wide
-- A key of which several jobs may run at once.
SELECT key, concurrency FROM key_limits WHERE queue = :queue AND concurrency > 1 ORDER BY key LIMIT 1;

-- name: set
-- One that is paused keeps its first reason.
INSERT INTO key_limits AS known (queue, key, paused_at, paused_by, paused_why, concurrency, weight, version)
VALUES (:queue, :key, CASE WHEN :paused THEN now() END, :by, :why, :concurrency, :weight, 1)
    ON CONFLICT (queue, key) DO UPDATE
   SET paused_at = CASE WHEN :paused THEN coalesce(known.paused_at, now()) END,
       paused_by = CASE WHEN :paused AND known.paused_at IS NOT NULL THEN known.paused_by ELSE :by END,
       paused_why = CASE WHEN :paused AND known.paused_at IS NOT NULL THEN known.paused_why ELSE :why END,
       concurrency = :concurrency, weight = :weight, version = known.version + 1, updated_at = now()
RETURNING queue, key, paused_at, paused_by, paused_why, concurrency, weight, version;

-- name: forget
DELETE FROM key_limits WHERE queue = :queue AND key = :key;

-- name: apply
-- Has the key's lanes go by its limits, or by those of all keys where it has none. A lane that was full is looked at by the next claim.
UPDATE lanes
   SET weight = :weight, concurrency = :concurrency,
       turn = greatest(turn, (SELECT mine.turn FROM lane_turns AS mine WHERE mine.queue = lanes.queue AND mine.task = lanes.task)),
       state = CASE WHEN :paused THEN 'paused' WHEN state = 'paused' THEN 'ready' ELSE state END
 WHERE lane = djps_lane(:queue, :key);

-- name: note
-- A queue one of whose keys has limits has them itself: its jobs lie in lanes.
UPDATE queues
   SET is_limited = (:has_limits OR EXISTS (SELECT FROM key_limits WHERE queue = :queue)),
       has_lanes = has_lanes OR :has_limits OR EXISTS (SELECT FROM key_limits WHERE queue = :queue),
       updated_at = now()
 WHERE name = :queue;

-- name: counts
-- What waits of a key, counted up to `most`, and how many processes run its jobs.
SELECT (SELECT count(*) FROM (
           SELECT FROM jobs_living WHERE lane = djps_lane(:queue, :key) AND status = 'queued' LIMIT :most) AS counted) AS waiting,
       djps_lane_holders(djps_lane(:queue, :key), '', CAST(:most AS int)) AS running;
