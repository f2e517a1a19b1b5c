-- Queues whose flow was ever changed; one without a row is as by default.
--
-- Guard: `lock` comes first in a transaction that changes one: who changes it as well waits, and then sees what was done.
-- Locks: the queue's row.

-- name: find
SELECT name, paused_at, paused_by, paused_why, version,
       concurrency, rate_limit, rate_per, rate_burst, key_concurrency, key_rate_limit, key_rate_per, key_rate_burst, fair, key_order, ageing,
       max_depth, max_age, key_max_depth FROM queues WHERE name = :name;

-- name: all
SELECT name, paused_at, paused_by, paused_why, version,
       concurrency, rate_limit, rate_per, rate_burst, key_concurrency, key_rate_limit, key_rate_per, key_rate_burst, fair, key_order, ageing,
       max_depth, max_age, key_max_depth FROM queues ORDER BY name;

-- name: make
INSERT INTO queues (name) VALUES (:name) ON CONFLICT DO NOTHING;

-- name: lock
SELECT name, paused_at, paused_by, paused_why, version,
       concurrency, rate_limit, rate_per, rate_burst, key_concurrency, key_rate_limit, key_rate_per, key_rate_burst, fair, key_order, ageing,
       max_depth, max_age, key_max_depth FROM queues WHERE name = :name FOR UPDATE;

-- name: set
-- Pauses it, or resumes it.
UPDATE queues SET paused_at = CASE WHEN :paused THEN now() END, paused_by = :by, paused_why = :why,
                  version = version + 1, updated_at = now()
 WHERE name = :name
RETURNING name, paused_at, paused_by, paused_why, version,
       concurrency, rate_limit, rate_per, rate_burst, key_concurrency, key_rate_limit, key_rate_per, key_rate_burst, fair, key_order, ageing,
       max_depth, max_age, key_max_depth;

-- name: limit
-- Gives it limits, or takes them away; where one of its keys has some, it has. Where it had some, jobs may still lie in lanes.
UPDATE queues
   SET concurrency = :concurrency, rate_limit = :rate_limit, rate_per = :rate_per, rate_burst = :rate_burst,
       key_concurrency = :key_concurrency, key_rate_limit = :key_rate_limit, key_rate_per = :key_rate_per,
       key_rate_burst = :key_rate_burst, fair = :fair, key_order = :key_order, ageing = :ageing,
       max_depth = :max_depth, max_age = :max_age, key_max_depth = :key_max_depth,
       is_limited = :is_limited OR EXISTS (SELECT FROM key_limits WHERE queue = :name), has_lanes = has_lanes OR :is_limited,
       next_start = CASE WHEN (rate_limit, rate_per) IS NOT DISTINCT FROM (:rate_limit, :rate_per) THEN next_start ELSE 0 END,
       version = version + 1, updated_at = now()
 WHERE name = :name
RETURNING name, paused_at, paused_by, paused_why, version,
       concurrency, rate_limit, rate_per, rate_burst, key_concurrency, key_rate_limit, key_rate_per, key_rate_burst, fair, key_order, ageing,
       max_depth, max_age, key_max_depth;
