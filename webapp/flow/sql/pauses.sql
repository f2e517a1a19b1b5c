-- The pauses that hold a job: its queue's and its task's; a row for each. Locks nothing.
SELECT 'queues', name, paused_at, paused_by, paused_why FROM queues WHERE name = :queue AND paused_at IS NOT NULL
 UNION ALL
SELECT 'tasks', task, paused_at, paused_by, paused_why FROM task_limits WHERE task = :task AND paused_at IS NOT NULL;
