-- The rules in force, for the book of a process; the two tables have rows only of what was ever changed. Locks nothing.
SELECT 'queue' AS kind, name, true AS is_closed FROM queues WHERE paused_at IS NOT NULL
 UNION ALL
SELECT 'task', task, paused_at IS NOT NULL FROM task_limits WHERE paused_at IS NOT NULL OR has_aside;
