-- Seals over the record of acts, and the lines that they are made of.
--
-- Guard: a seal is made by the one that holds the lock of `alone`, and its number is one more than the newest's, so a second writer
-- that had no lock would fail at the primary key. What is sealed is of transactions that have ended: none can add to it.
-- Locks: `alone`, until the end of its transaction. Acts wait for nothing here.

-- name: alone
SELECT pg_try_advisory_xact_lock(:lock);

-- name: newest
-- After `alone`, so that it sees what the writer before has committed.
SELECT seq, sealed_at, server, after_id, CAST(up_to_xid AS text) AS up_to_xid, up_to_id, greatest_id, oldest_at, events, previous, sha256, hmac
  FROM audit_seals ORDER BY seq DESC LIMIT 1;

-- name: page
SELECT seq, sealed_at, server, after_id, CAST(up_to_xid AS text) AS up_to_xid, up_to_id, greatest_id, oldest_at, events, previous, sha256, hmac
  FROM audit_seals WHERE seq > :after ORDER BY seq LIMIT :limit;

-- name: add
INSERT INTO audit_seals (seq, sealed_at, server, after_id, up_to_xid, up_to_id, greatest_id, oldest_at, events, previous, sha256, hmac)
VALUES (:seq, :sealed_at, :server, :after_id, CAST(CAST(:up_to_xid AS text) AS xid8), :up_to_id, :greatest_id, :oldest_at, :events,
        :previous, :sha256, :hmac);

-- name: here
-- Now, and which server this is: each that was made anew has another identifier, and numbers transactions by itself.
SELECT now(), system_identifier FROM pg_control_system();

-- name: ahead
-- The greatest id of lines whose transactions this server has not begun: another server has numbered them.
SELECT max(id) FROM audit_events WHERE xid >= pg_snapshot_xmax(pg_current_snapshot());

-- name: first_of
-- The least transaction that has, or can still get, a line with a greater id than this.
SELECT least((SELECT first.xid FROM audit_events AS first WHERE first.id > CAST(:after_id AS bigint) ORDER BY first.xid, first.id LIMIT 1),
             pg_snapshot_xmin(pg_current_snapshot()));

-- name: next_numbering
SELECT min(after_id) FROM audit_seals WHERE after_id > CAST(:after_id AS bigint);

-- name: unsealed
-- Lines after a seal's last, in the order in which they are sealed (by the column, and not by its text). A transaction below the oldest that runs has ended, and is seen
-- here as a whole or not at all; `before` is given where all have ended.
SELECT id, to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS at, CAST(xid AS text) AS xid, event, success, actor_kind,
       actor_id, actor_name, address, request_id, target_kind, target_id, matched, changed, reason, CAST(details AS text) AS details,
       tenant_id
  FROM audit_events
 WHERE (xid, id) > (CAST(CAST(:xid AS text) AS xid8), CAST(:id AS bigint))
   AND xid < coalesce(CAST(CAST(:before AS text) AS xid8), pg_snapshot_xmin(pg_current_snapshot()))
   AND id > CAST(:after_id AS bigint) AND id <= CAST(:until_id AS bigint)
 ORDER BY audit_events.xid, id LIMIT :limit;

-- name: within
-- Lines from one seal's last to another's.
SELECT id, to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS at, CAST(xid AS text) AS xid, event, success, actor_kind,
       actor_id, actor_name, address, request_id, target_kind, target_id, matched, changed, reason, CAST(details AS text) AS details,
       tenant_id
  FROM audit_events
 WHERE (xid, id) > (CAST(CAST(:xid AS text) AS xid8), CAST(:id AS bigint))
   AND (xid, id) <= (CAST(CAST(:up_to_xid AS text) AS xid8), CAST(:up_to_id AS bigint))
   AND id > CAST(:after_id AS bigint) AND id <= CAST(:until_id AS bigint)
 ORDER BY audit_events.xid, id LIMIT :limit;

-- name: waiting
-- How many are not sealed, counted up to a limit.
SELECT count(*)
  FROM (SELECT FROM audit_events
         WHERE (xid, id) > (CAST(CAST(:xid AS text) AS xid8), CAST(:id AS bigint)) AND id > CAST(:after_id AS bigint) LIMIT :limit) AS counted;

-- name: oldest_waiting
-- How long ago the act was that waits longest for its seal, seconds. Where this server has made the newest seal, lines of
-- transactions that it has not begun have one by another's, and are not gone through.
SELECT extract(epoch FROM now() - at)
  FROM audit_events
 WHERE (xid, id) > (CAST(CAST(:xid AS text) AS xid8), CAST(:id AS bigint)) AND id > CAST(:after_id AS bigint)
   AND xid < (SELECT CASE WHEN system_identifier = :server THEN pg_snapshot_xmax(pg_current_snapshot()) ELSE CAST(CAST(:last_xid AS text) AS xid8) END
                FROM pg_control_system())
 ORDER BY xid, id LIMIT 1;

-- name: has_waiting
-- True if a month has lines that are not sealed.
SELECT EXISTS (SELECT FROM audit_events
                WHERE (xid, id) > (CAST(CAST(:xid AS text) AS xid8), CAST(:id AS bigint)) AND id > CAST(:after_id AS bigint)
                  AND tableoid = to_regclass(CAST(:name AS text)));
