-- Tenants: whose jobs and keys there are. None is ever deleted.
--
-- Guard: each change begins with `stamp` of keys.sql, so every process reads keys and tenants anew.
-- Locks: the row of `access_state`, then that of the tenant.

-- name: names
-- Of those beside the default one.
SELECT slug FROM tenants WHERE id <> 1 ORDER BY id LIMIT :most;

-- name: page
SELECT id, slug, name, created_at, suspended_at, quotas,
       (SELECT count(*) FROM access_keys AS key WHERE key.tenant_id = tenants.id AND key.revoked_at IS NULL)
  FROM tenants ORDER BY id LIMIT :most;

-- name: find
SELECT id, slug, name, created_at, suspended_at, quotas,
       (SELECT count(*) FROM access_keys AS key WHERE key.tenant_id = tenants.id AND key.revoked_at IS NULL)
  FROM tenants WHERE slug = :slug;

-- name: age
-- How long ago it was made, seconds.
SELECT extract(epoch FROM clock_timestamp() - created_at)::float8 FROM tenants WHERE slug = :slug;

-- name: add
INSERT INTO tenants (slug, name) VALUES (:slug, :name) ON CONFLICT DO NOTHING RETURNING id;

-- name: suspend
-- One that was suspended before keeps its date.
UPDATE tenants SET suspended_at = CASE WHEN :suspended THEN coalesce(suspended_at, now()) END WHERE id = :id;

-- name: set_quotas
UPDATE tenants SET quotas = CAST(:quotas AS jsonb) WHERE id = :id;

-- name: queues_of
-- Queues that waiting jobs or limits name, and that would be the tenant's own.
(SELECT queue FROM jobs_living WHERE status = 'queued' AND dispatched_at IS NULL AND queue LIKE :like LIMIT 5)
UNION
(SELECT queue FROM jobs_living WHERE status = 'queued' AND dispatched_at IS NOT NULL AND queue LIKE :like LIMIT 5)
UNION
(SELECT name FROM queues WHERE name LIKE :like LIMIT 5);
