-- The rules in force, for the book of a process; the two tables have rows only of what was ever changed. Locks nothing.
SELECT 'queue' AS kind, name, paused_at IS NOT NULL AS is_closed, is_limited, has_lanes AND NOT is_limited AS is_leaving
  FROM queues WHERE paused_at IS NOT NULL OR is_limited OR has_lanes
 UNION ALL
SELECT 'task', task, paused_at IS NOT NULL, is_limited, has_aside
  FROM task_limits WHERE paused_at IS NOT NULL OR is_limited OR has_aside;
