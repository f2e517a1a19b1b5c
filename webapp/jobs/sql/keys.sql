-- Idempotency keys: who owns them, and the end of those that have run out.
-- Guard: a key that has run out belongs to no one. Locks: `own` the rows of the keys, in their order; `prune` those that no other session
-- has locked; the others none.

-- name: owner
SELECT job_id, fingerprint FROM idempotency_keys WHERE key = :key AND expires_at > now();

-- name: owners
SELECT key, job_id, fingerprint FROM idempotency_keys WHERE key = ANY(CAST(:keys AS text[])) AND expires_at > now();

-- name: own
-- Has jobs own keys that are free.
INSERT INTO idempotency_keys AS taken (key, fingerprint, job_id, expires_at)
SELECT key, decode(fingerprint, 'hex'), id, now() + make_interval(secs => :key_ttl)
  FROM unnest(CAST(:keys AS text[]), CAST(:fingerprints AS text[]), CAST(:ids AS uuid[])) AS given(key, fingerprint, id)
 ORDER BY key
    ON CONFLICT (key) DO UPDATE SET fingerprint = excluded.fingerprint, job_id = excluded.job_id, created_at = now(),
                expires_at = excluded.expires_at
          WHERE taken.expires_at <= now();

-- name: prune
DELETE FROM idempotency_keys WHERE key IN (
    SELECT key FROM idempotency_keys WHERE expires_at <= now()
     ORDER BY expires_at LIMIT :limit FOR UPDATE SKIP LOCKED);
