-- How far a read replica is behind. Reads only, asks no table, and needs no rights but to connect.
--
-- Which server is it? The cluster's identifier is the same on a primary and its standbys, and on no other server; the time
-- at which the server was started tells them apart. Each promotion begins a timeline: a standby that is on an earlier one than
-- the primary follows a server that was the primary once.

-- name: replica
-- What the server at DATABASE_READ_URL says of itself. Ages are in seconds by its own clock.
--
-- `timeline`: the newest that it is known to have followed; without `pg_read_all_stats` it is known at the next restartpoint.
-- `replayed_age`: since the last transaction that it has replayed was committed. Everything before that is there. While the
-- primary writes nothing this grows, although nothing is missing.
-- `heard_age`: since the primary last said where its WAL ends, where all of that has been replayed. Of the two times of that
-- message the earlier counts: a message may lie about on its way. Without `pg_read_all_stats` it is not seen. Of a standby that
-- follows another standby it says nothing by itself.
SELECT cluster.system_identifier AS cluster,
       pg_postmaster_start_time() AS started_at,
       greatest(saved.timeline_id, recovered.min_recovery_end_timeline, receiver.received_tli) AS timeline,
       pg_is_in_recovery() AS in_recovery,
       CAST(extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()) AS float8) AS replayed_age,
       CASE WHEN receiver.status = 'streaming'
             AND pg_last_wal_replay_lsn() >= greatest(receiver.latest_end_lsn, receiver.written_lsn)
            THEN CAST(extract(epoch FROM clock_timestamp()
                                         - least(receiver.last_msg_send_time, receiver.last_msg_receipt_time)) AS float8)
       END AS heard_age,
       CAST(pg_last_wal_replay_lsn() - CAST('0/0' AS pg_lsn) AS bigint) AS replayed
  FROM pg_control_system() AS cluster, pg_control_checkpoint() AS saved,
       pg_control_recovery() AS recovered LEFT JOIN pg_stat_wal_receiver AS receiver ON true;

-- name: primary
-- What the server at DATABASE_URL says: what is committed lies before `written`.
SELECT cluster.system_identifier AS cluster,
       pg_postmaster_start_time() AS started_at,
       CASE WHEN pg_is_in_recovery() THEN saved.timeline_id
            ELSE CAST(CAST('x' || left(pg_walfile_name(pg_current_wal_flush_lsn()), 8) AS bit(32)) AS int) END AS timeline,
       CASE WHEN NOT pg_is_in_recovery() THEN CAST(pg_current_wal_flush_lsn() - CAST('0/0' AS pg_lsn) AS bigint) END AS written
  FROM pg_control_system() AS cluster, pg_control_checkpoint() AS saved;
