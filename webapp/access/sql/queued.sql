-- How many jobs of a tenant beside the default one wait, counted no further than `most`: by an index that has such jobs alone.
-- Locks nothing.

-- name: of_one
SELECT count(*) FROM (
    SELECT FROM jobs_living WHERE tenant_id = :tenant AND tenant_id <> 1 AND status = 'queued' LIMIT :most) AS counted;

-- name: of_each
-- Of the first tenants, with how many of their jobs run.
SELECT slug, (SELECT count(*) FROM (
                  SELECT FROM jobs_living WHERE tenant_id = tenants.id AND tenant_id <> 1 AND status = 'queued' LIMIT :most) AS counted),
             (SELECT count(*) FROM (
                  SELECT FROM jobs_living WHERE tenant_id = tenants.id AND tenant_id <> 1 AND status = 'processing' LIMIT :most) AS counted)
  FROM (SELECT id, slug FROM tenants WHERE id <> 1 ORDER BY id LIMIT :tenants) AS tenants;
