-- What became of each time of a schedule.
--
-- Guard: the primary key (schedule, time, round): a time that is there already is left alone, but for `fire_again`.
-- Locks: the rows that are written.

-- name: insert
INSERT INTO firings (schedule_id, at, round, kind, outcome, reason, until, job_id, version)
SELECT * FROM unnest(CAST(:schedule_ids AS uuid[]), CAST(:ats AS timestamptz[]), CAST(:rounds AS smallint[]),
                     CAST(:kinds AS text[]), CAST(:outcomes AS text[]), CAST(:reasons AS text[]),
                     CAST(:untils AS timestamptz[]), CAST(:job_ids AS uuid[]), CAST(:versions AS int[]))
ON CONFLICT DO NOTHING
RETURNING schedule_id, at, round;

-- name: fill
-- The same for times that are filled in later: one that was passed over or refused may fire after all.
INSERT INTO firings AS f (schedule_id, at, round, kind, outcome, reason, until, job_id, version)
SELECT * FROM unnest(CAST(:schedule_ids AS uuid[]), CAST(:ats AS timestamptz[]), CAST(:rounds AS smallint[]),
                     CAST(:kinds AS text[]), CAST(:outcomes AS text[]), CAST(:reasons AS text[]),
                     CAST(:untils AS timestamptz[]), CAST(:job_ids AS uuid[]), CAST(:versions AS int[]))
ON CONFLICT (schedule_id, at, round) DO UPDATE
   SET kind = excluded.kind, outcome = excluded.outcome, reason = excluded.reason, job_id = excluded.job_id,
       version = excluded.version, fired_at = now()
 WHERE f.outcome IN ('skipped', 'refused')
RETURNING schedule_id, at, round;

-- name: settle
-- What became of times after all: of those that waited, and of those whose job was not stored.
UPDATE firings AS f
   SET outcome = g.outcome, reason = g.reason, job_id = g.job_id
  FROM unnest(CAST(:schedule_ids AS uuid[]), CAST(:ats AS timestamptz[]), CAST(:rounds AS smallint[]),
              CAST(:outcomes AS text[]), CAST(:reasons AS text[]), CAST(:job_ids AS uuid[]))
       AS g(schedule_id, at, round, outcome, reason, job_id)
 WHERE f.schedule_id = g.schedule_id AND f.at = g.at AND f.round = g.round;

-- name: drop_waiting
-- What waits of these schedules is passed over.
UPDATE firings SET outcome = 'skipped', reason = :reason
 WHERE schedule_id = ANY(CAST(:ids AS uuid[])) AND outcome = 'buffered';

-- name: page
-- From the newest time on.
SELECT at, round, kind, outcome, reason, until, job_id, version, fired_at
  FROM firings
 WHERE schedule_id = :id AND (CAST(:outcome AS text) IS NULL OR outcome = :outcome)
   AND (CAST(:before_at AS timestamptz) IS NULL OR (at, round) < (:before_at, :before_round))
 ORDER BY at DESC, round DESC LIMIT :limit;

-- name: fired_at
-- Which of these times have fired or wait, whatever the round.
SELECT at, max(round) FILTER (WHERE round >= 0), bool_or(outcome IN ('fired', 'buffered') AND round >= 0)
  FROM firings WHERE schedule_id = :id AND at = ANY(CAST(:ats AS timestamptz[])) GROUP BY at;

-- name: next_ids
SELECT id FROM schedules WHERE id > :after ORDER BY id LIMIT :limit;

-- name: prune_many
-- Of each of these schedules, deletes what is beyond the newest so many, and what is older than so many days (NULL: nothing is);
-- at most :most of each.
WITH gone AS (
    DELETE FROM firings AS f USING (
        SELECT s.id, o.at, o.round FROM unnest(CAST(:ids AS uuid[])) AS s(id), LATERAL (
               (SELECT at, round, outcome FROM firings WHERE schedule_id = s.id
                 ORDER BY fired_at DESC OFFSET :kept LIMIT :most)
               UNION
               (SELECT at, round, outcome FROM firings WHERE schedule_id = s.id
                   AND fired_at < now() - make_interval(days => CAST(:days AS int)) LIMIT :most)) AS o
         WHERE o.outcome <> 'buffered') AS old
     WHERE f.schedule_id = old.id AND f.at = old.at AND f.round = old.round
    RETURNING f.schedule_id, f.at, f.outcome),
marked AS (
    UPDATE schedules AS s SET pruned_until = greatest(s.pruned_until, g.until)
      FROM (SELECT schedule_id, max(at) AS until FROM gone WHERE outcome = 'fired' GROUP BY schedule_id) AS g
     WHERE s.id = g.schedule_id)
SELECT count(*) FROM gone;
