-- Idempotency keys: who owns them, and the end of those that have run out.
-- Guard: a key that has run out belongs to no one. Locks: `prune` the rows of the keys, those that another session has locked
-- left out; the others none.

-- name: owner
SELECT job_id, fingerprint FROM idempotency_keys WHERE key = :key AND expires_at > now();

-- name: owners
SELECT key, job_id, fingerprint FROM idempotency_keys WHERE key = ANY(CAST(:keys AS text[])) AND expires_at > now();

-- name: prune
DELETE FROM idempotency_keys WHERE key IN (
    SELECT key FROM idempotency_keys WHERE expires_at <= now()
     ORDER BY expires_at LIMIT :limit FOR UPDATE SKIP LOCKED);
