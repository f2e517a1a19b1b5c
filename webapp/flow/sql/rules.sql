-- The rules in force, for the book of a process: a row for each thing that holds of a name. The two tables have rows only of what was
-- ever changed. Locks nothing.
SELECT rule, name
  FROM queues CROSS JOIN LATERAL (VALUES
       ('closed_queues', paused_at IS NOT NULL), ('limited_queues', is_limited), ('leaving_queues', has_lanes AND NOT is_limited),
       ('bounded_queues', max_depth IS NOT NULL OR max_age IS NOT NULL OR key_max_depth IS NOT NULL)) AS rules (rule, holds)
 WHERE holds
 UNION ALL
SELECT rule, task
  FROM task_limits CROSS JOIN LATERAL (VALUES
       ('closed_tasks', paused_at IS NOT NULL), ('limited_tasks', is_limited), ('leaving_tasks', has_lanes AND NOT is_limited),
       ('returning', has_aside AND paused_at IS NULL)) AS rules (rule, holds)
 WHERE holds;
