-- Jobs of paused tasks, set aside: their `dispatched_at` is infinity, so they are neither at the head of their queue, where others
-- would wait behind them, nor ever taken for sent and not claimed.
--
-- Guard: `lock_paused` comes first in the transaction that sets aside: no task is resumed before its jobs are all to be seen. The
-- jobs are queued.
-- Locks: the tasks' rows (shared), in the order of their names; then jobs, those that another session has locked left out.

-- name: lock_paused
SELECT task FROM task_limits WHERE task = ANY(:tasks) AND paused_at IS NOT NULL ORDER BY task FOR SHARE;

-- name: set_aside
-- Those among the first `limit` that are due; the head is that of head.sql.
WITH head AS (
    SELECT id AS head_id, task AS head_task, timeout AS head_timeout, priority AS head_priority
      FROM jobs_living
     WHERE queue = :queue AND status = 'queued' AND dispatched_at IS NULL AND run_at <= now()
       AND (expires_at IS NULL OR expires_at > now() OR attempt > 0)
     ORDER BY priority DESC, run_at
     LIMIT :limit
       FOR UPDATE SKIP LOCKED)
UPDATE jobs_living SET dispatched_at = 'infinity' FROM head WHERE id = ANY(ARRAY[head_id]) AND head_task = ANY(:tasks);

-- name: bring_back
-- Leaves the jobs of tasks that are open again to the dispatcher, `limit` at most.
UPDATE jobs_living SET dispatched_at = NULL
  FROM (SELECT id FROM jobs_living
         WHERE queue = :queue AND status = 'queued' AND dispatched_at = 'infinity' AND lane IS NULL
           AND task = ANY(:tasks)
         ORDER BY dispatched_at LIMIT :limit FOR UPDATE SKIP LOCKED) AS aside
 WHERE jobs_living.id = ANY(ARRAY[aside.id]);

-- name: all_are_back
-- Notes of the tasks that are open that none of their jobs is aside any more, where that is so.
UPDATE task_limits SET has_aside = false
 WHERE task = ANY(:tasks) AND paused_at IS NULL AND NOT EXISTS (
       SELECT FROM jobs_living
        WHERE jobs_living.task = task_limits.task AND status = 'queued' AND dispatched_at = 'infinity'
          AND lane IS NULL);
