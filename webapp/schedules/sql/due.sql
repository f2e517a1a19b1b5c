-- Schedules that are due, or wait for their turn: looked at, locked, moved on. The transaction that fires is made of these.
--
-- Guard: the lock of the schedule's row; the primary key of `firings`; `schedules_go_forward`. Each alone keeps a time from being
-- fired twice, and all of it is one transaction, so none is lost either.
-- Locks: schedules in the order of their times, those that another session has locked left out.

-- name: look
-- Seconds until the first schedule is due, NULL where none will be; and whether one waits for its turn. Locks nothing.
SELECT (SELECT extract(epoch FROM min(due_at) - now()) FROM schedules WHERE due_at IS NOT NULL AND paused_at IS NULL)::float8,
       EXISTS (SELECT FROM schedules WHERE buffered > 0 AND paused_at IS NULL);

-- name: take_due
SELECT s.id, s.name, s.queue, s.version, s.created_at, s.updated_at, s.paused_at, s.paused_by, s.pause_note, s.resumed_at,
       s.next_at, s.due_at, s.last_at, s.open_job_id, s.buffered, s.fired, s.skipped, s.pruned_until, v.spec, now()
  FROM schedules AS s JOIN schedule_versions AS v ON v.schedule_id = s.id AND v.version = s.version
 WHERE s.due_at <= now() AND s.paused_at IS NULL
 ORDER BY s.due_at LIMIT :limit FOR UPDATE OF s SKIP LOCKED;

-- name: take
-- Those of these ids that are not locked and not paused.
SELECT s.id, s.name, s.queue, s.version, s.created_at, s.updated_at, s.paused_at, s.paused_by, s.pause_note, s.resumed_at,
       s.next_at, s.due_at, s.last_at, s.open_job_id, s.buffered, s.fired, s.skipped, s.pruned_until, v.spec, now()
  FROM schedules AS s JOIN schedule_versions AS v ON v.schedule_id = s.id AND v.version = s.version
 WHERE s.id = ANY(CAST(:ids AS uuid[])) AND s.buffered > 0 AND s.paused_at IS NULL
   FOR UPDATE OF s SKIP LOCKED;

-- name: look_at_waiting
-- Schedules of which a time waits, the next ones by id; and whether the job that it waits for has ended. Locks nothing.
SELECT id, NOT EXISTS (SELECT FROM jobs_living WHERE jobs_living.id = schedules.open_job_id)
  FROM schedules WHERE buffered > 0 AND paused_at IS NULL AND id > :after
 ORDER BY id LIMIT :limit;

-- name: open_jobs
-- Those of these jobs that have not ended. A statement of its own after the lock of their schedules: it sees what was committed before.
SELECT id FROM jobs_living WHERE id = ANY(CAST(:ids AS uuid[]));

-- name: oldest_waiting
-- The oldest time of each of these schedules that waits for its turn.
SELECT s.id, f.at, f.round, f.kind
  FROM unnest(CAST(:ids AS uuid[])) AS s(id), LATERAL (
       SELECT at, round, kind FROM firings WHERE schedule_id = s.id AND outcome = 'buffered' ORDER BY at, round LIMIT 1) AS f;

-- name: move
-- Moves schedules on that are locked.
UPDATE schedules AS s
   SET next_at = g.next_at, due_at = g.due_at, last_at = coalesce(g.last_at, s.last_at),
       open_job_id = coalesce(g.open_job_id, s.open_job_id), buffered = g.buffered, fired = s.fired + g.fired,
       skipped = s.skipped + g.skipped, tz_version = :tz_version
  FROM unnest(CAST(:ids AS uuid[]), CAST(:next_ats AS timestamptz[]), CAST(:due_ats AS timestamptz[]),
              CAST(:last_ats AS timestamptz[]), CAST(:open_job_ids AS uuid[]), CAST(:buffered AS int[]),
              CAST(:fired AS int[]), CAST(:skipped AS int[]))
       AS g(id, next_at, due_at, last_at, open_job_id, buffered, fired, skipped)
 WHERE s.id = g.id;

-- name: put_off
-- One that cannot be worked on is looked at again later; its next time stays.
UPDATE schedules SET due_at = now() + make_interval(secs => :seconds) WHERE id = :id AND due_at <= now();

-- name: pause
-- Pauses one that is locked.
UPDATE schedules SET paused_at = now(), paused_by = :by, pause_note = :note WHERE id = :id AND paused_at IS NULL;

-- name: last_jobs
-- The newest jobs of a schedule, since it was resumed.
SELECT job_id FROM firings
 WHERE schedule_id = :id AND job_id IS NOT NULL AND outcome = 'fired' AND (CAST(:since AS timestamptz) IS NULL OR fired_at > :since)
 ORDER BY fired_at DESC LIMIT :limit;

-- name: overdue
-- How many schedules are due for more than so many seconds, counted up to a bound.
SELECT count(*) FROM (SELECT FROM schedules
                       WHERE due_at < now() - make_interval(secs => :seconds) AND paused_at IS NULL LIMIT :most) AS late;

-- name: older_rules
-- Schedules whose next time was computed by other rules of time zones. Locks them.
SELECT s.id, s.name, s.queue, s.version, s.created_at, s.updated_at, s.paused_at, s.paused_by, s.pause_note, s.resumed_at,
       s.next_at, s.due_at, s.last_at, s.open_job_id, s.buffered, s.fired, s.skipped, s.pruned_until, v.spec, now()
  FROM schedules AS s JOIN schedule_versions AS v ON v.schedule_id = s.id AND v.version = s.version
 WHERE (s.tz_version < :tz_version OR s.tz_version > :tz_version)
 LIMIT :limit FOR UPDATE OF s SKIP LOCKED;
