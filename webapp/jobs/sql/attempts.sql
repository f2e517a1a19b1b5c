-- A job's attempts from the newest on, the running one and the one that completed the job (on record in the job's own row) among them,
-- as many as fit into a page: `room` bytes of messages and tracebacks, the first one whatever its size. `found` says how many there
-- were before those that do not fit were left out. Reads primary keys; locks nothing.
WITH newest AS (
    SELECT attempt, worker_id, outcome, started_at, ended_at, error_type, error_message, traceback
      FROM job_attempts WHERE job_id = :id AND attempt < :before
     UNION ALL
    SELECT attempt, ended_by, 'completed', coalesce(run_began_at, last_attempt_at), coalesce(run_ended_at, finished_at),
           NULL, NULL, NULL
      FROM jobs WHERE id = :id AND finished_at = :finished_at AND status = 'completed' AND ended_by IS NOT NULL
                  AND attempt < :before
     UNION ALL
    SELECT attempt, worker_id, NULL, last_attempt_at, NULL, NULL, NULL, NULL
      FROM jobs_living AS job WHERE id = :id AND status = 'processing' AND attempt < :before AND NOT EXISTS (
           SELECT FROM job_attempts AS ended WHERE ended.job_id = job.id AND ended.attempt = job.attempt)
     ORDER BY attempt DESC LIMIT :limit),
measured AS (
    SELECT *, sum(coalesce(octet_length(traceback), 0) + coalesce(octet_length(error_message), 0)) OVER last AS bytes,
           count(*) OVER () AS found, row_number() OVER last AS number
      FROM newest WINDOW last AS (ORDER BY attempt DESC))
SELECT attempt, worker_id, outcome, started_at, ended_at, error_type, error_message, traceback, found
  FROM measured WHERE bytes <= :room OR number = 1 ORDER BY attempt DESC;
