-- Looks at queues that take submissions up to a bound: how many jobs wait, for how long, and how quickly they leave. Everything is
-- counted through an index and up to a bound.
--
-- Guard: only who has locked a queue's row in `queue_looks` looks at it anew, so all processes together do so once in a second.
-- Locks: that row; `lock` leaves it to another session that has it, `wait` waits for that. The others lock nothing.

-- name: settings
-- Before the others, in their transaction. Statistics of a table that has just filled up say that it is empty; by them whole
-- tables would be read and sorted.
SELECT set_config(name, value, true)
  FROM (VALUES ('statement_timeout', :statement_timeout), ('lock_timeout', :lock_timeout), ('jit', 'off'), ('enable_seqscan', 'off'),
               ('enable_bitmapscan', 'off'), ('enable_incremental_sort', 'off'))
       AS settings(name, value);

-- name: timeout
SELECT set_config('statement_timeout', :statement_timeout, true);

-- name: known
-- A queue's bounds, and the last look at it.
SELECT max_depth, max_age, key_max_depth, paused_at IS NOT NULL, extract(epoch FROM clock_timestamp())::float8,
       at, took, depth, oldest, old_since, too_old, full_since, drain, surplus
  FROM queues LEFT JOIN queue_looks ON queue = name
 WHERE name = :queue;

-- name: make
INSERT INTO queue_looks (queue) VALUES (:queue) ON CONFLICT DO NOTHING;

-- name: lock
SELECT true FROM queue_looks WHERE queue = :queue FOR UPDATE SKIP LOCKED;

-- name: wait
SELECT true FROM queue_looks WHERE queue = :queue FOR UPDATE;

-- name: depth
-- Queued jobs, counted up to `most`, of those with a message and those without.
SELECT (SELECT count(*) FROM (
           SELECT FROM jobs_living WHERE status = 'queued' AND dispatched_at IS NULL AND queue = :queue
            ORDER BY priority DESC, run_at LIMIT :most) AS counted)
     + (SELECT count(*) FROM (
           SELECT FROM jobs_living WHERE status = 'queued' AND dispatched_at IS NOT NULL AND queue = :queue
            ORDER BY dispatched_at LIMIT :most) AS counted);

-- name: oldest
-- How long the oldest due job has waited, as the gauges have it (webapp/queues/sql/backlog.sql).
SELECT coalesce(extract(epoch FROM now() - least(
           (SELECT min(due.run_at) FROM generate_series(0, 9) AS level CROSS JOIN LATERAL (
                SELECT run_at FROM jobs_living
                 WHERE status = 'queued' AND dispatched_at IS NULL AND queue = :queue AND priority = level AND run_at <= now()
                 ORDER BY run_at LIMIT 1) AS due),
           (SELECT min(run_at) FROM (
                SELECT run_at FROM jobs_living
                 WHERE status = 'queued' AND dispatched_at IS NOT NULL AND queue = :queue AND run_at <= now()
                 ORDER BY dispatched_at LIMIT :most) AS due))), 0)::float8;

-- name: ends
-- Jobs of a queue that ended in the last `recent` and `long_ago` seconds, among the `most` of its ended jobs that were submitted last; and
-- the seconds that these cover where there are more: the first of them ended as long ago.
SELECT count(*) FILTER (WHERE finished_at > now() - make_interval(secs => :recent)),
       count(*) FILTER (WHERE finished_at > now() - make_interval(secs => :long_ago)),
       extract(epoch FROM now() - percentile_disc(0.5) WITHIN GROUP (ORDER BY finished_at) FILTER (WHERE place > :most - 100))::float8
  FROM (SELECT finished_at, row_number() OVER (ORDER BY id DESC) AS place
          FROM jobs WHERE queue = :queue AND finished_at > now() - interval '1 day'
         ORDER BY id DESC LIMIT :most) AS last;

-- name: surplus
-- How many of the due jobs must leave, at `drain` in a second, until the oldest of the rest is younger than `clears` seconds.
SELECT coalesce(min(ahead) FILTER (WHERE age + ahead / CAST(:drain AS float8) < CAST(:clears AS float8)), count(*))
  FROM (SELECT row_number() OVER (ORDER BY run_at) - 1 AS ahead, extract(epoch FROM now() - run_at)::float8 AS age FROM (
           (SELECT due.run_at FROM generate_series(0, 9) AS level CROSS JOIN LATERAL (
                SELECT run_at FROM jobs_living
                 WHERE status = 'queued' AND dispatched_at IS NULL AND queue = :queue AND priority = level AND run_at <= now()
                 ORDER BY run_at LIMIT :most) AS due LIMIT :most)
            UNION ALL
           (SELECT run_at FROM jobs_living
             WHERE status = 'queued' AND dispatched_at IS NOT NULL AND queue = :queue AND run_at <= now()
             ORDER BY dispatched_at LIMIT :most)) AS due) AS in_order;

-- name: note
UPDATE queue_looks
   SET at = :at, took = :took, depth = :depth, oldest = :oldest, old_since = :old_since, too_old = :too_old,
       full_since = :full_since, drain = :drain, surplus = :surplus
 WHERE queue = :queue;

-- name: key_depths
-- Queued jobs of keys, each counted up to its own bound, and how long the oldest due one has waited.
SELECT given.queue, given.key, (
       SELECT count(*) FROM (
           SELECT FROM jobs_living AS job
            WHERE job.queue = given.queue AND job.key = given.key AND job.status = 'queued'
            ORDER BY job.run_at LIMIT given.most) AS counted)
  FROM unnest(CAST(:queues AS text[]), CAST(:keys AS text[]), CAST(:mosts AS int[])) AS given(queue, key, most);

-- name: key_surplus
-- Queued jobs of a key, counted up to `most`, and how long the oldest due one has waited.
SELECT count(*), coalesce(greatest(extract(epoch FROM now() - min(run_at)), 0), 0)::float8
  FROM (SELECT run_at FROM jobs_living WHERE queue = :queue AND key = :key AND status = 'queued'
         ORDER BY run_at LIMIT :most) AS waiting;

-- name: key_ends
-- The same as `ends` of one key.
SELECT count(*) FILTER (WHERE finished_at > now() - make_interval(secs => :recent)),
       count(*) FILTER (WHERE finished_at > now() - make_interval(secs => :long_ago)),
       extract(epoch FROM now() - percentile_disc(0.5) WITHIN GROUP (ORDER BY finished_at) FILTER (WHERE place > :most - 100))::float8
  FROM (SELECT finished_at, row_number() OVER (ORDER BY id DESC) AS place
          FROM jobs WHERE key = :key AND queue = :queue AND finished_at > now() - interval '1 day'
         ORDER BY id DESC LIMIT :most) AS last;

-- name: forget
-- After a change of its bounds: what was found by others says nothing.
DELETE FROM queue_looks WHERE queue = :queue;
