-- What keeps lanes in order beside the claims: it calls lanes that a restored dump or a fault of ours has forgotten, and forgets those of
-- which nothing is left to know.
--
-- Guard: a lane is called when jobs wait in it and nothing tells of them: it has no row or is idle, and no wake-up is on its way. It is forgotten
-- when it is idle and the turns of others have passed its own, so that no key comes back to turns in store.
-- Locks: lanes that are forgotten or mended, those that another session has locked left out.

-- name: call_forgotten
-- Steps from lane to lane in the index of their heads. The longest timeout is that of the lane's first jobs.
WITH RECURSIVE heads AS (
    (SELECT lane, task, queue, key FROM jobs_living WHERE status = 'queued' AND lane IS NOT NULL ORDER BY lane, task LIMIT 1)
    UNION ALL
    SELECT later.lane, later.task, later.queue, later.key FROM heads CROSS JOIN LATERAL (
        SELECT lane, task, queue, key FROM jobs_living
         WHERE status = 'queued' AND lane IS NOT NULL AND (lane, task) > (heads.lane, heads.task)
         ORDER BY lane, task LIMIT 1) AS later),
forgotten AS (
    SELECT * FROM heads
     WHERE NOT EXISTS (SELECT FROM lanes WHERE lanes.lane = heads.lane AND lanes.task = heads.task AND state <> 'idle')
       AND NOT EXISTS (SELECT FROM lane_wakeups AS called
                        WHERE called.queue = heads.queue AND called.lane = heads.lane AND called.task = heads.task)
     LIMIT :limit)
INSERT INTO lane_wakeups (queue, lane, task, key, timeout)
SELECT queue, lane, task, coalesce(key, ''), (
       SELECT max(timeout) FROM (SELECT timeout FROM jobs_living AS job
         WHERE job.lane = forgotten.lane AND job.task = forgotten.task AND job.status = 'queued' LIMIT :limit) AS first)
  FROM forgotten;

-- name: mend_timed
-- A lane that waits for no moment would wait for ever.
UPDATE lanes SET state = 'ready' WHERE state = 'timed' AND ready_at IS NULL;

-- name: forget_idle
DELETE FROM lanes USING (
    SELECT idle.lane, idle.task FROM lanes AS idle JOIN lane_turns AS front ON front.queue = idle.queue AND front.task = idle.task
     WHERE idle.state = 'idle' AND idle.turn <= front.turn - 1
     LIMIT :limit FOR UPDATE OF idle SKIP LOCKED) AS passed
 WHERE lanes.lane = passed.lane AND lanes.task = passed.task AND lanes.state = 'idle';

-- name: forget_rates
-- One that is paid for long ago says what no row says. The longest period is thirty days, and a fortieth of it is not forfeited.
DELETE FROM lane_rates USING (
    SELECT lane FROM lane_rates WHERE next_start < extract(epoch FROM now()) - 86400 LIMIT :limit FOR UPDATE SKIP LOCKED) AS paid
 WHERE lane_rates.lane = paid.lane;
