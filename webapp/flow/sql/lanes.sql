-- Lanes: where jobs under a limit lie, by queue and key. Claims of them are made by the function `djps_take` of the database, behind the
-- queue's row, and nowhere else.
--
-- A job in a lane has `dispatched_at` infinity: it is never sent by its name, nor taken for sent and not claimed. A lane is told of new
-- work by a row in `lane_wakeups`, which is committed with that work; rows are only added there, so no submission waits for another.
--
-- Guard: jobs that are filed are unfinished and in no lane; jobs that leave are queued. `look` takes nothing.
-- Locks: the rows of the jobs, those that another session has locked left out.

-- name: take
SELECT * FROM djps_take(:queue, :task, :timeout, :limit, :worker_id, :lease);

-- name: look
-- What a queue's lanes have for children that are free, by task: due jobs, up to `limit` of each of sixteen lanes, the longest timeout,
-- the greatest priority, and how many processes may begin. Lanes that were called and are in no state yet count.
WITH RECURSIVE tasks AS (
    (SELECT task FROM lanes WHERE queue = :queue ORDER BY task LIMIT 1)
    UNION ALL
    SELECT later.task FROM tasks CROSS JOIN LATERAL (
        SELECT task FROM lanes WHERE queue = :queue AND task > tasks.task ORDER BY task LIMIT 1) AS later),
called AS MATERIALIZED (
    SELECT lane, task, max(timeout) AS timeout
      FROM (SELECT lane, task, timeout FROM lane_wakeups WHERE queue = :queue LIMIT 1000) AS oldest GROUP BY lane, task),
with_work AS (
    SELECT lane, task, timeout FROM called
     UNION
    SELECT some_lanes.lane, tasks.task, some_lanes.timeout FROM tasks CROSS JOIN LATERAL (
        (SELECT lane, timeout FROM lanes WHERE queue = :queue AND task = tasks.task AND state = 'ready' ORDER BY turn, lane LIMIT 16)
         UNION ALL
        (SELECT lane, timeout FROM lanes
          WHERE queue = :queue AND task = tasks.task AND state = 'timed' AND ready_at <= clock_timestamp() LIMIT 16)
         UNION ALL
        (SELECT lane, timeout FROM lanes WHERE queue = :queue AND task = tasks.task AND state = 'full' LIMIT 16)) AS some_lanes),
found AS (
    SELECT task, sum(jobs) AS jobs, max(timeout) AS timeout, max(priority) AS priority
      FROM with_work CROSS JOIN LATERAL (
           SELECT count(*) AS jobs, max(job.priority) AS priority FROM (
               SELECT priority FROM jobs_living AS waiting
                WHERE waiting.lane = with_work.lane AND waiting.task = with_work.task AND waiting.status = 'queued'
                  AND waiting.run_at <= clock_timestamp()
                ORDER BY priority DESC, run_at, id LIMIT :limit) AS job) AS counted
     WHERE jobs > 0 GROUP BY task)
SELECT found.task, found.jobs, found.timeout, found.priority,
       least(q.concurrency - djps_queue_holders(q.name, '', q.concurrency), t.concurrency - djps_task_holders(t.task, '', t.concurrency))
  FROM found LEFT JOIN queues AS q ON q.name = :queue LEFT JOIN task_limits AS t ON t.task = found.task
 WHERE q.paused_at IS NULL AND t.paused_at IS NULL
   AND coalesce(djps_allowed(q.rate_limit, q.rate_per, q.rate_burst, q.next_start, extract(epoch FROM clock_timestamp())::float8), 1) >= 1
   AND coalesce(djps_allowed(t.rate_limit, t.rate_per, t.rate_burst, t.next_start, extract(epoch FROM clock_timestamp())::float8), 1) >= 1;

-- name: file_waiting
-- Files the first jobs of a queue that wait beside its lanes: what was there before the limits, and what was submitted by a process that
-- did not know of them yet. `tasks`: of these only; NULL: all.
WITH beside AS (
    SELECT id FROM jobs_living
     WHERE queue = :queue AND status = 'queued' AND dispatched_at IS NULL AND lane IS NULL
       AND (CAST(:tasks AS text[]) IS NULL OR task = ANY(CAST(:tasks AS text[])))
     ORDER BY priority DESC, run_at LIMIT :limit FOR UPDATE SKIP LOCKED),
filed AS (
    UPDATE jobs_living SET lane = djps_lane(queue, key), dispatched_at = 'infinity' FROM beside WHERE jobs_living.id = ANY(ARRAY[beside.id])
    RETURNING lane, task, key, timeout)
INSERT INTO lane_wakeups (queue, lane, task, key, timeout)
SELECT :queue, lane, task, coalesce(min(key), ''), max(timeout) FROM filed GROUP BY lane, task
RETURNING (SELECT count(*) FROM filed);

-- name: file_sent
-- The same for those that a message names; that message finds nothing to claim.
WITH beside AS (
    SELECT id FROM jobs_living
     WHERE queue = :queue AND status = 'queued' AND dispatched_at < 'infinity' AND lane IS NULL
       AND (CAST(:tasks AS text[]) IS NULL OR task = ANY(CAST(:tasks AS text[])))
     ORDER BY dispatched_at LIMIT :limit FOR UPDATE SKIP LOCKED),
filed AS (
    UPDATE jobs_living SET lane = djps_lane(queue, key), dispatched_at = 'infinity' FROM beside WHERE jobs_living.id = ANY(ARRAY[beside.id])
    RETURNING lane, task, key, timeout)
INSERT INTO lane_wakeups (queue, lane, task, key, timeout)
SELECT :queue, lane, task, coalesce(min(key), ''), max(timeout) FROM filed GROUP BY lane, task
RETURNING (SELECT count(*) FROM filed);

-- name: file_running
-- Jobs that run beside the lanes count from now on. Their process has a slot.
UPDATE jobs_living SET lane = djps_lane(queue, key)
 WHERE status = 'processing' AND lane IS NULL AND (queue = ANY(CAST(:queues AS text[])) OR task = ANY(CAST(:tasks AS text[])));

-- name: leave_running
-- Jobs that run in the lanes of a queue without limits count no more.
UPDATE jobs_living SET lane = NULL WHERE queue = :queue AND status = 'processing' AND lane IS NOT NULL AND task <> ALL(CAST(:limited_tasks AS text[]));

-- name: leave
-- Leaves jobs of a queue without limits to the dispatcher.
WITH leaving AS (
    SELECT waiting.id FROM lanes CROSS JOIN LATERAL (
           SELECT id FROM jobs_living AS job
            WHERE job.lane = lanes.lane AND job.task = lanes.task AND job.status = 'queued'
            ORDER BY priority DESC, run_at, id LIMIT :limit FOR UPDATE SKIP LOCKED) AS waiting
     WHERE lanes.queue = :queue AND lanes.task <> ALL(CAST(:limited_tasks AS text[]))
     LIMIT :limit)
UPDATE jobs_living SET lane = NULL, dispatched_at = NULL FROM leaving WHERE jobs_living.id = ANY(ARRAY[leaving.id]);

-- name: make_gate
INSERT INTO queues (name) VALUES (:queue) ON CONFLICT DO NOTHING;

-- name: call
-- Brings the lanes of a queue up to date, behind its row.
SELECT djps_wake_lanes(name, '', NULL, clock_timestamp()) FROM (SELECT name FROM queues WHERE name = :queue FOR NO KEY UPDATE) AS gate;

-- name: call_after
-- Has lanes of keys in order looked at, one of whose jobs is final without having run: what comes after it may be due. `lanes`: their
-- numbers; of each all tasks.
INSERT INTO lane_wakeups (queue, lane, task, key, timeout)
SELECT lanes.queue, lanes.lane, lanes.task, lanes.key, lanes.timeout
  FROM lanes JOIN queues ON queues.name = lanes.queue AND queues.key_order = 'fifo'
 WHERE lanes.lane = ANY(CAST(:lanes AS bigint[]));

-- name: note_all_left
-- Notes that no job of a queue without limits lies in a lane, where that is so, and forgets its lanes. Not before the last submission
-- has ended that goes by the rules before.
WITH empty AS (
    UPDATE queues SET has_lanes = false
     WHERE name = :queue AND NOT is_limited AND updated_at < now() - make_interval(secs => :longest_submission)
       AND NOT EXISTS (SELECT FROM lane_wakeups WHERE queue = :queue)
       AND NOT EXISTS (SELECT FROM jobs_living WHERE queue = :queue AND status = 'processing' AND lane IS NOT NULL AND task <> ALL(CAST(:limited_tasks AS text[])))
       AND NOT EXISTS (SELECT FROM lanes CROSS JOIN LATERAL (
               SELECT FROM jobs_living AS job WHERE job.lane = lanes.lane AND job.task = lanes.task AND job.status = 'queued' LIMIT 1) AS waiting
            WHERE lanes.queue = :queue AND lanes.task <> ALL(CAST(:limited_tasks AS text[])))
    RETURNING name)
DELETE FROM lanes USING empty WHERE queue = empty.name AND task <> ALL(CAST(:limited_tasks AS text[]));

-- name: note_tasks_left
-- The same of tasks without limits, once none of their lanes is left but in queues that have limits.
UPDATE task_limits SET has_lanes = false
 WHERE task = ANY(CAST(:tasks AS text[])) AND NOT is_limited AND updated_at < now() - make_interval(secs => :longest_submission)
   AND NOT EXISTS (SELECT FROM lane_wakeups LEFT JOIN queues ON name = queue
                    WHERE lane_wakeups.task = task_limits.task AND is_limited IS NOT TRUE)
   AND NOT EXISTS (SELECT FROM lanes LEFT JOIN queues ON name = queue
                    WHERE lanes.task = task_limits.task AND is_limited IS NOT TRUE)
   AND NOT EXISTS (SELECT FROM jobs_living LEFT JOIN queues ON name = queue
                    WHERE jobs_living.task = task_limits.task AND status = 'processing' AND lane IS NOT NULL AND is_limited IS NOT TRUE);

-- name: next_start
-- Seconds until a lane's moment comes, or a rate that holds work back allows a start; NULL when neither is within `within` seconds.
SELECT greatest(0, min(moment) - extract(epoch FROM clock_timestamp()))::float8 FROM (
    SELECT extract(epoch FROM ready_at)::float8 AS moment FROM lanes WHERE queue = ANY(CAST(:queues AS text[])) AND state = 'timed'
     UNION ALL
    SELECT next_start + (1 - rate_burst) * rate_per / rate_limit FROM queues
     WHERE name = ANY(CAST(:queues AS text[])) AND rate_limit IS NOT NULL AND EXISTS (SELECT FROM lanes WHERE queue = queues.name AND state = 'ready')
     UNION ALL
    SELECT next_start + (1 - rate_burst) * rate_per / rate_limit FROM task_limits
     WHERE rate_limit IS NOT NULL AND EXISTS (
           SELECT FROM lanes WHERE queue = ANY(CAST(:queues AS text[])) AND lanes.task = task_limits.task AND state = 'ready')) AS moments
 WHERE moment < extract(epoch FROM clock_timestamp()) + :within
-- Of nothing no row comes: `greatest` would make a nought of it.
HAVING count(*) > 0;

-- name: slots
-- The concurrency limits there are, and how much of each is taken.
SELECT 'queue', name, concurrency, djps_queue_holders(name, '', concurrency) FROM queues WHERE concurrency IS NOT NULL
 UNION ALL
SELECT 'task', task, concurrency, djps_task_holders(task, '', concurrency) FROM task_limits WHERE concurrency IS NOT NULL;
