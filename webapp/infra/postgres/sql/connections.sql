-- Our connections to PostgreSQL, for the gauges. Both read what the server keeps in memory, and lock nothing.

-- name: by_role
-- By the role of the process, which its application name tells, and by state.
SELECT substr(application_name, 6), coalesce(state, 'unknown'), count(*)
  FROM pg_stat_activity
 WHERE datname = current_database() AND application_name LIKE 'djps-%'
 GROUP BY 1, 2 LIMIT 100;

-- name: most
-- How many connections PostgreSQL takes.
SELECT setting::int FROM pg_settings WHERE name = 'max_connections';
