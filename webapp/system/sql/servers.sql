-- How PostgreSQL does. Reads its own views and the size of its files; locks nothing.
SELECT current_setting('server_version'),
       pg_database_size(current_database()),
       (SELECT coalesce(sum(n_live_tup), 0) FROM pg_stat_user_tables),
       (SELECT coalesce(sum(n_dead_tup), 0) FROM pg_stat_user_tables),
       (SELECT coalesce(max(age(backend_xmin)), 0) FROM pg_stat_activity WHERE datname = current_database()),
       (SELECT coalesce(extract(epoch FROM max(clock_timestamp() - xact_start)), 0)
          FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()),
       (SELECT max(version_num) FROM alembic_version);
