-- The name of the tenant of a job that has not ended. Reads primary keys; locks nothing.
SELECT slug FROM tenants WHERE id = (SELECT tenant_id FROM jobs_living WHERE id = :id);
