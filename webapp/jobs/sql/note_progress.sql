-- Writes how far an attempt is.
-- Guard: the job is processing, and `attempt` is its newest. Locks: the job's row.
UPDATE jobs_living
   SET progress = jsonb_build_object('done', CAST(:done AS float8), 'total', CAST(:total AS float8),
                                     'note', CAST(:note AS text), 'at',
                                     to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')),
       updated_at = now()
 WHERE id = :id AND status = 'processing' AND attempt = :attempt;
