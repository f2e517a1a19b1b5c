-- Notes of members' ends: triggers write them in the transaction that ends a member, here they are counted.
--
-- Guard: a note is deleted in the statement that counts it, so none counts twice, and none is lost with a process. A CHECK keeps the
-- counters within their total.
-- Locks: one session counts at a time (`may_count`), so the rows of the groups can be locked in any order; notes that another session
-- has locked are left out.

-- name: may_count
SELECT pg_try_advisory_xact_lock(:lock);

-- name: count
-- The oldest notes by their primary key: without that order each run would read the dead rows of all before it.
-- Workflows take their notes themselves. The line that ends with `-- one` is left out where all groups are counted.
WITH oldest AS MATERIALIZED (
    SELECT id FROM group_ends AS note
     WHERE EXISTS (SELECT FROM groups WHERE groups.id = ANY(ARRAY[note.group_id]) AND kind = 'batch')
       AND group_id = :group  -- one
     ORDER BY id LIMIT :limit FOR UPDATE SKIP LOCKED),
taken AS (
    DELETE FROM group_ends WHERE id = ANY(ARRAY(SELECT id FROM oldest)) RETURNING group_id, was, became),
sums AS (
    SELECT group_id, count(*) AS notes,
           count(*) FILTER (WHERE became = 'completed') - count(*) FILTER (WHERE was = 'completed') AS completed,
           count(*) FILTER (WHERE became = 'failed') - count(*) FILTER (WHERE was = 'failed') AS failed,
           count(*) FILTER (WHERE became = 'cancelled') - count(*) FILTER (WHERE was = 'cancelled') AS cancelled
      FROM taken GROUP BY group_id),
counted AS (
    UPDATE groups
       SET completed = groups.completed + sums.completed, failed = groups.failed + sums.failed,
           cancelled = groups.cancelled + sums.cancelled, updated_at = now()
      FROM sums WHERE groups.id = ANY(ARRAY[sums.group_id])
    RETURNING groups.id)
SELECT sums.group_id, sums.notes, counted.id IS NOT NULL FROM sums LEFT JOIN counted ON counted.id = sums.group_id;

-- name: noted
-- Batches that have notes.
SELECT DISTINCT group_id FROM (
    SELECT group_id FROM group_ends ORDER BY id LIMIT :limit) AS oldest
 WHERE EXISTS (SELECT FROM groups WHERE groups.id = ANY(ARRAY[group_id]) AND kind = 'batch');

-- name: drop_orphans
-- Of groups that are gone. A group's row is deleted after its members ended; what is noted later belongs to no one.
DELETE FROM group_ends WHERE id = ANY(ARRAY(
    SELECT id FROM group_ends AS note
     WHERE NOT EXISTS (SELECT FROM groups WHERE groups.id = ANY(ARRAY[note.group_id]))
     ORDER BY id LIMIT :limit FOR UPDATE SKIP LOCKED));

-- name: totals
-- The counters of groups and the notes that are not counted yet, in one snapshot: exact at any moment.
SELECT groups.id, groups.total, groups.completed + coalesce(notes.completed, 0), groups.failed + coalesce(notes.failed, 0),
       groups.cancelled + coalesce(notes.cancelled, 0), groups.skipped
  FROM groups LEFT JOIN LATERAL (
       SELECT count(*) FILTER (WHERE became = 'completed') - count(*) FILTER (WHERE was = 'completed') AS completed,
              count(*) FILTER (WHERE became = 'failed') - count(*) FILTER (WHERE was = 'failed') AS failed,
              count(*) FILTER (WHERE became = 'cancelled') - count(*) FILTER (WHERE was = 'cancelled') AS cancelled
         FROM group_ends WHERE group_ends.group_id = groups.id) AS notes ON true
 WHERE groups.id = ANY(CAST(:ids AS uuid[]));

-- name: oldest
-- Seconds that the oldest note has waited; notes are in the order of their ids but for transactions that ran side by side.
SELECT extract(epoch FROM now() - noted_at)::float8 FROM group_ends ORDER BY id LIMIT 1;
