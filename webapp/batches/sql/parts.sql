-- Parts of batches: what was sent under a name, and what that was answered.
--
-- Guard: the primary key (batch, member, part): of two requests with one part, the second waits for the first and finds its row.
-- Locks: the part's row, before the jobs and the batch.

-- name: take
INSERT INTO batch_parts (group_id, member_id, part, fingerprint) VALUES (:id, :member, :part, :fingerprint)
ON CONFLICT DO NOTHING RETURNING part;

-- name: answered
UPDATE batch_parts SET ids = CAST(:ids AS uuid[]), others = CAST(:others AS json)
 WHERE group_id = :id AND member_id = :member AND part = :part;

-- name: find
SELECT fingerprint, CAST(ids AS text[]), coalesce(others, '{}') FROM batch_parts WHERE group_id = :id AND member_id = :member AND part = :part;

-- name: forget
DELETE FROM batch_parts WHERE group_id = :id AND member_id = :member AND part = :part;
