-- Keys of the API and the hashes of their secrets. A secret itself is nowhere.
--
-- Guard: each change begins with `stamp`: who changes keys as well waits, and then sees what was done; and every process reads the keys anew
-- that finds another stamp than it knows.
-- Locks: the row of `access_state`, then keys, then secrets. `note_uses` takes keys in the order of their ids and leaves out those that are locked.

-- name: stamp
INSERT INTO access_state AS known (single, stamp) VALUES (true, gen_random_uuid())
    ON CONFLICT (single) DO UPDATE SET stamp = excluded.stamp;

-- name: stamp_now
SELECT CAST(stamp AS text) FROM access_state;

-- name: living
-- The secrets that let someone in, and those that did a moment ago, so that their owners are told why they do not.
SELECT secret.hash, key.id, key.tenant_id, key.name, key.role, key.scopes, key.networks, key.queues, key.quotas,
       CAST(extract(epoch FROM least(key.expires_at, secret.expires_at)) AS float8), tenant.slug, tenant.suspended_at IS NOT NULL, tenant.quotas,
       CASE WHEN tenant.id <> 1 THEN tenant.created_at END
  FROM access_keys AS key JOIN access_secrets AS secret ON secret.key_id = key.id JOIN tenants AS tenant ON tenant.id = key.tenant_id
 WHERE key.revoked_at IS NULL
   AND coalesce(least(key.expires_at, secret.expires_at), 'infinity') > now() - make_interval(secs => :told)
 ORDER BY key.id DESC LIMIT :most;

-- name: live_number
-- How many keys are live, counted up to `most`.
SELECT count(*) FROM (
    SELECT FROM access_keys WHERE revoked_at IS NULL AND coalesce(expires_at, 'infinity') > now() LIMIT :most) AS counted;

-- name: add_key
INSERT INTO access_keys (tenant_id, name, role, scopes, networks, queues, quotas, created_by, expires_at)
VALUES (:tenant, :name, :role, CAST(:scopes AS text[]), CAST(:networks AS text[]), CAST(:queues AS text[]), CAST(:quotas AS jsonb), :by, now() + make_interval(secs => CAST(:lifetime AS float8)))
RETURNING id;

-- name: add_secret
INSERT INTO access_secrets (hash, key_id, hint) VALUES (:hash, :id, :hint);

-- name: date_secrets
-- The newest secret is good for `overlap` seconds more, and no longer than it was; older ones are not good any more.
UPDATE access_secrets AS secret
   SET expires_at = least(secret.expires_at, now() + make_interval(secs => CASE WHEN secret.hash = newest.hash THEN CAST(:overlap AS float8) ELSE 0 END))
  FROM (SELECT hash FROM access_secrets WHERE key_id = :id ORDER BY created_at DESC, hash LIMIT 1) AS newest
 WHERE secret.key_id = :id;

-- name: set_quotas
UPDATE access_keys SET quotas = CAST(:quotas AS jsonb) WHERE id = :id;

-- name: revoke
-- One that was revoked before keeps its date.
UPDATE access_keys SET revoked_at = coalesce(revoked_at, now()) WHERE id = :id;

-- name: find
SELECT key.id, tenant.slug, key.name, key.role, key.scopes, key.networks, key.created_by, key.created_at, key.expires_at, key.revoked_at,
       key.last_used_at, key.last_used_from,
       CASE WHEN key.revoked_at IS NOT NULL THEN 'revoked' WHEN key.expires_at <= now() THEN 'expired' ELSE 'live' END,
       ARRAY(SELECT hint FROM access_secrets AS secret
              WHERE secret.key_id = key.id AND coalesce(secret.expires_at, 'infinity') > now() ORDER BY secret.created_at, secret.hash),
       key.queues, key.quotas
  FROM access_keys AS key JOIN tenants AS tenant ON tenant.id = key.tenant_id
 WHERE key.id = :id
   AND key.tenant_id = :tenant  -- tenant
   AND key.tenant_id <= :tenant  -- default tenant
;

-- name: of_secret
-- The key that a secret is or was good for.
SELECT key_id, coalesce(expires_at, 'infinity') > now() FROM access_secrets WHERE hash IN (:hash, :hash_apart);

-- name: page
-- The newest first, after the key `before`; those that are revoked or have expired only where `ended`.
SELECT key.id, tenant.slug, key.name, key.role, key.scopes, key.networks, key.created_by, key.created_at, key.expires_at, key.revoked_at,
       key.last_used_at, key.last_used_from,
       CASE WHEN key.revoked_at IS NOT NULL THEN 'revoked' WHEN key.expires_at <= now() THEN 'expired' ELSE 'live' END,
       ARRAY(SELECT hint FROM access_secrets AS secret
              WHERE secret.key_id = key.id AND coalesce(secret.expires_at, 'infinity') > now() ORDER BY secret.created_at, secret.hash),
       key.queues, key.quotas
  FROM access_keys AS key JOIN tenants AS tenant ON tenant.id = key.tenant_id
 WHERE (CAST(:before AS int) IS NULL OR key.id < :before)
   AND key.tenant_id = :tenant  -- tenant
   AND key.tenant_id <= :tenant  -- default tenant
   AND (CAST(:slug AS text) IS NULL OR tenant.slug = :slug)
   AND (:ended OR (key.revoked_at IS NULL AND coalesce(key.expires_at, 'infinity') > now()))
 ORDER BY key.id DESC LIMIT :limit;

-- name: admin
-- A live key with the role admin, of the default tenant.
SELECT id FROM access_keys
 WHERE tenant_id = 1 AND role = 'admin' AND revoked_at IS NULL AND coalesce(expires_at, 'infinity') > now() ORDER BY id LIMIT 1;

-- name: note_uses
-- When and from where keys were last used, as a process has seen it; what another one saw later stays.
WITH given AS (
    SELECT * FROM unnest(CAST(:ids AS int[]), CAST(:seconds AS float8[]), CAST(:addresses AS text[])) AS given(id, seconds, address)),
taken AS (
    SELECT key.id FROM access_keys AS key JOIN given ON given.id = key.id
     WHERE key.last_used_at IS NULL OR key.last_used_at < to_timestamp(given.seconds)
     ORDER BY key.id FOR UPDATE OF key SKIP LOCKED)
UPDATE access_keys AS key SET last_used_at = to_timestamp(given.seconds), last_used_from = given.address
  FROM given JOIN taken ON taken.id = given.id WHERE key.id = given.id;
