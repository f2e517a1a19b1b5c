-- Whose a job is that runs, and what its own submission was: what jobs that are submitted from inside of it get from it.
--
-- Guard: the attempt still runs; one whose lease was lost finds no row.
-- Locks nothing; reads primary keys, and the names of tenants.
SELECT tenant.id, tenant.slug, tenant.created_at, job.submitted_by, job.request_id, job.traceparent,
       ARRAY(SELECT slug FROM tenants WHERE id <> 1 ORDER BY id LIMIT :most) AS guests
  FROM jobs_living AS job
  JOIN tenants AS tenant ON tenant.id = job.tenant_id
 WHERE job.id = :id AND job.attempt = :attempt AND job.status = 'processing';
