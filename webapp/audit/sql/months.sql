-- The partitions of the record, one for each month (UTC), and one for what has no month.
--
-- Guard: who drops one has looked that its time was over AUDIT_DAYS ago.
-- Locks: making and dropping keep acts waiting for as long as it takes to change the catalog; they wait for their own lock no longer
-- than `bound` says, and are tried again. The others lock nothing.

-- name: bound
-- Before each of those, in its transaction: who waits for such a lock has all others wait behind it.
SELECT set_config('lock_timeout', CAST(:lock_ms AS text), true), set_config('statement_timeout', CAST(:statement_ms AS text), true);

-- name: names
SELECT child.relname FROM pg_inherits JOIN pg_class AS child ON child.oid = inhrelid WHERE inhparent = 'audit_events'::regclass;

-- name: newest_unfiled
-- The newest event that has no month: its month cannot be made any more.
SELECT max(at) FROM audit_events_rest;

-- name: make
-- Unless another sweep has made it meanwhile.
SELECT djps_make_audit_month(:name, :since, :until) WHERE to_regclass(CAST(:name AS text)) IS NULL;

-- name: renew_rest
-- All in it is old. A partition of its own is made in its place.
SELECT djps_renew_audit_rest();
