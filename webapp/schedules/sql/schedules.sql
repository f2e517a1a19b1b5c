-- Schedules as those see them who ask: by name, in pages; made, changed and deleted.
--
-- Guard: `lock` comes first in a transaction that changes one; what is out of reach is not there.
-- Locks: the schedule's row.

-- name: find
SELECT s.id, s.name, s.queue, s.version, s.created_at, s.updated_at, s.paused_at, s.paused_by, s.pause_note, s.resumed_at,
       s.next_at, s.due_at, s.last_at, s.open_job_id, s.buffered, s.fired, s.skipped, s.pruned_until, v.spec, now()
  FROM schedules AS s JOIN schedule_versions AS v ON v.schedule_id = s.id AND v.version = s.version
 WHERE s.name = :name
   AND s.queue = ANY(CAST(:queues AS text[]))  -- reach
;

-- name: lock
-- Locked in a statement before the version is read, so that what is read is what is locked.
SELECT id FROM schedules WHERE name = :name FOR UPDATE;

-- name: page
-- Without their jobs: a thousand payloads may be very large.
SELECT s.id, s.name, s.queue, s.version, s.created_at, s.updated_at, s.paused_at, s.paused_by, s.pause_note, s.resumed_at,
       s.next_at, s.due_at, s.last_at, s.open_job_id, s.buffered, s.fired, s.skipped, s.pruned_until, CAST(v.spec AS jsonb) - 'job', now()
  FROM schedules AS s JOIN schedule_versions AS v ON v.schedule_id = s.id AND v.version = s.version
 WHERE s.name > :after
   AND (CAST(:state AS text) IS NULL OR :state = CASE WHEN s.paused_at IS NOT NULL THEN 'paused'
        WHEN s.next_at IS NULL AND s.buffered = 0 THEN 'ended' ELSE 'active' END)
   AND s.queue = ANY(CAST(:queues AS text[]))  -- reach
 ORDER BY s.name LIMIT :limit;

-- name: make
-- Nothing where there is one of this name.
INSERT INTO schedules (id, name, queue, version, next_at, due_at, tz_version)
VALUES (:id, :name, :queue, 1, :next_at, :due_at, :tz_version) ON CONFLICT (name) DO NOTHING
RETURNING id;

-- name: change
UPDATE schedules SET queue = :queue, version = :version, next_at = :next_at, due_at = :due_at, tz_version = :tz_version,
                     updated_at = now()
 WHERE id = :id;

-- name: add_version
INSERT INTO schedule_versions (schedule_id, version, spec, changed_by, why)
VALUES (:id, :version, CAST(:spec AS json), :by, :why);

-- name: drop_versions
DELETE FROM schedule_versions WHERE schedule_id = :id AND version <= :until;

-- name: versions
SELECT version, spec, changed_at, changed_by, why FROM schedule_versions
 WHERE schedule_id = :id ORDER BY version DESC LIMIT :limit;

-- name: delete
-- With all that is of it; it is locked, so nothing fires meanwhile.
WITH its_firings AS (DELETE FROM firings WHERE schedule_id = :id),
     its_versions AS (DELETE FROM schedule_versions WHERE schedule_id = :id)
DELETE FROM schedules WHERE id = :id;

-- name: pause
UPDATE schedules SET paused_at = now(), paused_by = :by, pause_note = :note, updated_at = now() WHERE id = :id;

-- name: resume
UPDATE schedules SET paused_at = NULL, paused_by = NULL, pause_note = NULL, resumed_at = now(), next_at = :next_at,
                     due_at = :due_at, last_at = coalesce(:last_at, last_at), tz_version = :tz_version, updated_at = now()
 WHERE id = :id;

-- name: moment
SELECT now();
