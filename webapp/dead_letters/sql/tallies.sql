-- Tallies of open dead letters: triggers note in each transaction what it opens and closes, here the notes are counted and read.
--
-- Guard: a note is deleted in the statement that counts it, so none counts twice, and none is lost with a process. What is read is the
-- tally and the notes in one snapshot, so it is exact at any moment, however late the notes are counted.
-- Locks: one session counts at a time (`may_fold`), so the rows of the groups can be locked in any order.

-- name: may_fold
SELECT pg_try_advisory_xact_lock(:lock);

-- name: fold
-- The oldest notes by their primary key: without that order each run would read the dead rows of all before it.
WITH taken AS (
    DELETE FROM letter_notes WHERE id = ANY(ARRAY(
        SELECT id FROM letter_notes ORDER BY id LIMIT :limit FOR UPDATE SKIP LOCKED))
    RETURNING tenant_id, task, queue, error_type, fingerprint, opened, closed, at),
counted AS (
    INSERT INTO letter_groups AS known (tenant_id, task, queue, error_type, fingerprint, open)
    SELECT tenant_id, task, queue, error_type, fingerprint, sum(opened - closed) FROM taken GROUP BY 1, 2, 3, 4, 5
    ON CONFLICT (fingerprint, task, queue, error_type, tenant_id) DO UPDATE SET open = known.open + excluded.open
    RETURNING id, tenant_id, task, queue, error_type, fingerprint),
hours AS (
    INSERT INTO letter_hours AS known (group_id, hour, opened, closed)
    SELECT counted.id, date_trunc('hour', taken.at, 'UTC'), sum(taken.opened), sum(taken.closed)
      FROM taken JOIN counted USING (tenant_id, task, queue, error_type, fingerprint)
     WHERE taken.at IS NOT NULL GROUP BY 1, 2
    ON CONFLICT (group_id, hour) DO UPDATE SET opened = known.opened + excluded.opened, closed = known.closed + excluded.closed)
SELECT count(*) FROM taken;

-- name: forget_hours
DELETE FROM letter_hours WHERE hour < now() - make_interval(hours => :hours);

-- name: forget_groups
-- Those of which none is open and nothing happened lately. To be run where `may_fold` has said yes.
DELETE FROM letter_groups WHERE open = 0 AND NOT EXISTS (SELECT FROM letter_hours WHERE group_id = letter_groups.id);

-- name: recount
-- What is there and not counted, as a note; where the tallies are right it writes none. One snapshot, so it may be run at any time.
INSERT INTO letter_notes (tenant_id, task, queue, error_type, fingerprint, opened, closed, at)
SELECT tenant_id, task, queue, error_type, fingerprint, greatest(sum(n), 0), greatest(-sum(n), 0), NULL
  FROM (SELECT tenant_id, coalesce(task, '') AS task, coalesce(queue, '') AS queue, coalesce(error_type, '') AS error_type,
               fingerprint, 1 AS n
          FROM dead_letters WHERE requeued_at IS NULL AND discarded_at IS NULL
         UNION ALL SELECT tenant_id, task, queue, error_type, fingerprint, closed - opened FROM letter_notes
         UNION ALL SELECT tenant_id, task, queue, error_type, fingerprint, -open FROM letter_groups) AS figures
 GROUP BY 1, 2, 3, 4, 5 HAVING sum(n) <> 0;

-- name: total
-- How many are open; costs what there are groups, and notes that are not counted yet.
SELECT coalesce(sum(d.open), 0)
  FROM (SELECT tenant_id, task, queue, error_type, fingerprint, open FROM letter_groups
         UNION ALL SELECT tenant_id, task, queue, error_type, fingerprint, opened - closed FROM letter_notes) AS d
 WHERE (CAST(:task AS text) IS NULL OR d.task = :task)
   AND (CAST(:queue AS text) IS NULL OR d.queue = :queue)
   AND d.queue = ANY(CAST(:queues AS text[]))  -- reach
   AND d.tenant_id = :tenant AND d.tenant_id <> 1  -- tenant
   AND d.tenant_id <= :tenant  -- default tenant
   AND (CAST(:error_type AS text) IS NULL OR d.error_type = :error_type)
   AND (CAST(:fingerprint AS text) IS NULL OR d.fingerprint = :fingerprint);

-- name: groups
-- Those that died of the same, the largest group first; the newest and the oldest letter of each are found by an index.
WITH alike AS MATERIALIZED (
    SELECT d.task, d.queue, d.error_type, d.fingerprint, sum(d.open) AS count
      FROM (SELECT tenant_id, task, queue, error_type, fingerprint, open FROM letter_groups
             UNION ALL SELECT tenant_id, task, queue, error_type, fingerprint, opened - closed FROM letter_notes) AS d
     WHERE (CAST(:task AS text) IS NULL OR d.task = :task)
       AND (CAST(:queue AS text) IS NULL OR d.queue = :queue)
       AND d.queue = ANY(CAST(:queues AS text[]))  -- reach
       AND d.tenant_id = :tenant AND d.tenant_id <> 1  -- tenant
       AND d.tenant_id <= :tenant  -- default tenant
       AND (CAST(:error_type AS text) IS NULL OR d.error_type = :error_type)
       AND (CAST(:fingerprint AS text) IS NULL OR d.fingerprint = :fingerprint)
     GROUP BY 1, 2, 3, 4 HAVING sum(d.open) > 0
     ORDER BY sum(d.open) DESC, 4, 1, 2 LIMIT :limit)
SELECT nullif(alike.task, ''), nullif(alike.queue, ''), nullif(alike.error_type, ''), alike.fingerprint, CAST(alike.count AS bigint),
       oldest.dead_at, newest.dead_at, newest.job_id, newest.error_message, ended.traceback
  FROM alike
  JOIN LATERAL (
       SELECT d.id, d.job_id, d.error_message, d.dead_at FROM dead_letters d
        WHERE d.requeued_at IS NULL AND d.discarded_at IS NULL AND d.fingerprint = alike.fingerprint
          AND coalesce(d.task, '') = alike.task AND coalesce(d.queue, '') = alike.queue
          AND coalesce(d.error_type, '') = alike.error_type
          AND d.tenant_id = :tenant AND d.tenant_id <> 1  -- tenant
          AND d.tenant_id <= :tenant  -- default tenant
        ORDER BY d.id DESC LIMIT 1) AS newest ON true
  JOIN LATERAL (
       SELECT d.dead_at FROM dead_letters d
        WHERE d.requeued_at IS NULL AND d.discarded_at IS NULL AND d.fingerprint = alike.fingerprint
          AND coalesce(d.task, '') = alike.task AND coalesce(d.queue, '') = alike.queue
          AND coalesce(d.error_type, '') = alike.error_type
          AND d.tenant_id = :tenant AND d.tenant_id <> 1  -- tenant
          AND d.tenant_id <= :tenant  -- default tenant
        ORDER BY d.id LIMIT 1) AS oldest ON true
  LEFT JOIN LATERAL (SELECT traceback FROM job_attempts WHERE job_id = newest.job_id
                        AND ended_at <= newest.dead_at ORDER BY attempt DESC LIMIT 1) AS ended ON true
 ORDER BY alike.count DESC, newest.id DESC;

-- name: history
-- How many were opened and closed by the hour, of the last so many hours that have any.
SELECT d.hour, CAST(sum(d.opened) AS bigint), CAST(sum(d.closed) AS bigint)
  FROM (SELECT tenant_id, task, queue, error_type, fingerprint, hours.hour, hours.opened, hours.closed
          FROM letter_hours AS hours JOIN letter_groups ON letter_groups.id = hours.group_id
         UNION ALL
        SELECT tenant_id, task, queue, error_type, fingerprint, date_trunc('hour', at, 'UTC'), opened, closed
          FROM letter_notes WHERE at IS NOT NULL) AS d
 WHERE d.hour > date_trunc('hour', now(), 'UTC') - make_interval(hours => :hours)
   AND (CAST(:task AS text) IS NULL OR d.task = :task)
   AND (CAST(:queue AS text) IS NULL OR d.queue = :queue)
   AND d.queue = ANY(CAST(:queues AS text[]))  -- reach
   AND d.tenant_id = :tenant AND d.tenant_id <> 1  -- tenant
   AND d.tenant_id <= :tenant  -- default tenant
   AND (CAST(:error_type AS text) IS NULL OR d.error_type = :error_type)
   AND (CAST(:fingerprint AS text) IS NULL OR d.fingerprint = :fingerprint)
 GROUP BY 1 ORDER BY 1;
