-- Makes a job tell of its changes, on the channel `djps_watched`.
-- Guard: it is not final and does not tell of them yet. Locks: the job's row.
UPDATE jobs_living SET watched = true
 WHERE id = :id AND NOT watched AND status IN ('queued', 'processing');
