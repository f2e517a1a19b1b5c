-- Ends attempts of jobs that one process holds, whatever they came to, and writes their records: for one job or for hundreds.
--
-- Guard: the fence. A job must be processing, `attempt` must be its newest, and no end of it may be on record; else nothing of it
-- changes. The fence is put in a way that leaves the planner one choice for each job, the primary keys: statistics of a table
-- that fills up are always old, and by them it would rather read every job that has lately been processing. So is `id = ANY(ARRAY[...])`,
-- here and elsewhere: by it PostgreSQL cannot merge, and where it takes the table for empty it would else read it in the order of its ids.
-- `ended_by` is the rest of it: two ends of one last attempt may meet, for such a job stays processing. The one that has waited
-- for the row looks at it anew, but not at the records.
--
-- An attempt that completed its job has its record in the job's own row: `ended_by`, and when it ran where that is not from the
-- claim to the end. Others have theirs in `job_attempts`; the view `attempts` shows both.
--
-- Locks: the rows of the jobs, in the order that is given; then nothing. Callers that end jobs of several processes in one
-- transaction have locked them before (leases.sql).
--
-- Lines that end with `-- other ends` are left out for jobs that all completed, those that end with `-- times` for a job whose
-- attempt took all the time since its claim: it pays for nothing that it has not.
-- Columns that are NULL for all of the jobs are given as '{}'.
-- `follows` is what comes after: NULL completes the job; 'again' queues it; 'last' leaves it to be moved to the dead letter queue;
-- 'cancel' cancels it where that was asked and else leaves it running. A job whose cancellation was asked is not queued again
-- and does not go to the dead letter queue: it is cancelled.
WITH given AS (
    SELECT * FROM unnest(
        CAST(:ids AS uuid[]), CAST(:attempts AS int[]), CAST(:results AS text[]), CAST(:results_as_sent AS text[])
        , CAST(:ran_from AS float8[]), CAST(:ran_until AS float8[])                                         -- times
        , CAST(:follows AS text[]), CAST(:outcomes AS text[]), CAST(:outcomes_if_asked AS text[])           -- other ends
        , CAST(:delays AS float8[]), CAST(:burns AS int[]), CAST(:sent AS bool[])                           -- other ends
        , CAST(:summaries AS text[]), CAST(:error_types AS text[]), CAST(:error_messages AS text[])         -- other ends
        , CAST(:tracebacks AS text[]), CAST(:reasons AS text[]), CAST(:notes AS text[])                     -- other ends
        )
        AS given(id, attempt, result, result_as_sent
                 , ran_from, ran_until                                                                      -- times
                 , follows, outcome, outcome_if_asked, delay, burnt, sent                                   -- other ends
                 , summary, error_type, error_message, traceback, reason, note                              -- other ends
                 )),
ended AS (
    UPDATE jobs
       SET updated_at = now()
           , ended_by =
               CASE WHEN follows <> 'last' OR (follows = 'last' AND cancel_requested_at IS NOT NULL) THEN   -- other ends
               NULL ELSE                                                                                    -- other ends
               :worker_id
               END                                                                                          -- other ends
           , run_began_at = last_attempt_at + make_interval(secs => ran_from)                               -- times
           , run_ended_at = last_attempt_at + make_interval(secs => ran_until)                              -- times
           , result = CAST(given.result AS jsonb), result_as_sent = CAST(given.result_as_sent AS json),
           result_note = note,                                                                              -- other ends
           retry_count = retry_count + CASE WHEN cancel_requested_at IS NULL THEN coalesce(burnt, 0) ELSE 0 END, -- other ends
           run_at = CASE WHEN delay IS NULL THEN run_at ELSE now() + make_interval(secs => delay) END,      -- other ends
           dispatched_at = CASE WHEN follows IS DISTINCT FROM 'again' THEN dispatched_at                    -- other ends
                                WHEN lane IS NOT NULL THEN 'infinity'                                       -- other ends
                                WHEN sent AND cancel_requested_at IS NULL THEN now() END,                   -- other ends
           status =
               CASE WHEN follows IS NOT NULL AND cancel_requested_at IS NOT NULL THEN 'cancelled'           -- other ends
                    WHEN follows = 'again' THEN 'queued' WHEN follows IS NOT NULL THEN status ELSE          -- other ends
               'completed'
               END                                                                                          -- other ends
           , finished_at =
               CASE WHEN follows IS NULL OR cancel_requested_at IS NOT NULL THEN                            -- other ends
               now()
               END                                                                                          -- other ends
           , lease_expires_at =
               CASE WHEN follows = 'last' AND cancel_requested_at IS NULL THEN lease_expires_at ELSE        -- other ends
               NULL
               END                                                                                          -- other ends
           , worker_id =
               CASE WHEN follows = 'last' AND cancel_requested_at IS NULL THEN worker_id ELSE               -- other ends
               NULL
               END                                                                                          -- other ends
           , last_error =
               CASE WHEN follows = 'again' AND delay IS NULL THEN last_error                                -- other ends
                    WHEN cancel_requested_at IS NOT NULL AND outcome_if_asked IS NOT NULL THEN last_error   -- other ends
                    WHEN follows IS NOT NULL THEN coalesce(summary, last_error) ELSE                        -- other ends
               NULL
               END                                                                                          -- other ends
      FROM given
     WHERE jobs.id = ANY(ARRAY[given.id]) AND jobs.finished_at IS NULL AND (jobs.status = 'processing') IS TRUE
       AND jobs.attempt = given.attempt AND jobs.ended_by IS NULL
       AND (SELECT before.attempt FROM job_attempts AS before
             WHERE before.job_id = given.id AND before.attempt = given.attempt) IS NULL
       AND (follows IS DISTINCT FROM 'cancel' OR cancel_requested_at IS NOT NULL)                           -- other ends
    RETURNING jobs.id
              , jobs.attempt, jobs.last_attempt_at, jobs.status                                             -- other ends
              , jobs.task, jobs.queue, jobs.timeout, jobs.priority                                          -- other ends
              , outcome, outcome_if_asked, error_type, error_message, traceback, reason                     -- other ends
              )
, recorded AS (                                                                                             -- other ends
    INSERT INTO job_attempts (job_id, attempt, worker_id, started_at,                                       -- other ends
                              error_type, error_message, traceback, death_reason,                           -- other ends
                              ended_at, outcome)                                                            -- other ends
    SELECT id, attempt, :worker_id, last_attempt_at, error_type, error_message, traceback,                  -- other ends
           CASE WHEN status = 'processing' THEN reason END, now(),                                          -- other ends
           CASE WHEN status = 'cancelled' THEN coalesce(outcome_if_asked, outcome) ELSE outcome END         -- other ends
      FROM ended WHERE status <> 'completed'                                                                -- other ends
    ON CONFLICT (job_id, attempt) DO NOTHING                                                                -- other ends
    RETURNING job_id)                                                                                       -- other ends
SELECT id, status, task, queue, timeout, priority FROM ended
 WHERE status = 'completed' OR id IN (SELECT job_id FROM recorded)                                          -- other ends
;
