-- The record of changes: who changed what, when and why. Rows are only added, and deleted for their age.
--
-- Guard: `note` is in the transaction of the change, so there is never one without the other.
-- Locks: the rows that are deleted.

-- name: note
INSERT INTO flow_changes (who, target, old, new, why)
VALUES (:who, :target, CAST(:old AS jsonb), CAST(:new AS jsonb), :why);

-- name: page
-- From the newest on; `before` is the id of the last one of the page before.
SELECT id, at, who, target, old, new, why
  FROM flow_changes
 WHERE (CAST(:target AS text) IS NULL OR target = :target) AND (CAST(:before AS bigint) IS NULL OR id < :before)
   AND split_part(target, '/', 1) = 'queues' AND split_part(target, '/', 2) = ANY(CAST(:queues AS text[]))  -- reach
   AND starts_with(target, 'queues/' || CAST(:slug AS text) || '.')  -- tenant
   AND NOT (starts_with(target, 'queues/') AND strpos(split_part(target, '/', 2), '.') > 0 AND split_part(split_part(target, '/', 2), '.', 1) = ANY(CAST(:others AS text[])))  -- default tenant
 ORDER BY id DESC LIMIT :limit;

-- name: prune
DELETE FROM flow_changes WHERE id IN (
    SELECT id FROM flow_changes WHERE at < now() - make_interval(days => :days) ORDER BY id LIMIT :limit);
