-- Ends attempts of jobs that one process holds, whatever they came to, and writes their records: for one job or for hundreds.
--
-- Guard: the fence. A job must be processing, `attempt` must be its newest, and no end of it may be on record; else nothing of it
-- changes. The fence is put in a way that leaves the planner one choice for each job, the primary keys: statistics of a table
-- that fills up are always old, and by them it would rather read every job that has lately been processing.
-- `ON CONFLICT` is the rest of it: two ends of one last attempt may meet, for such a job stays processing.
--
-- Locks: the rows of the jobs, in the order that is given; then nothing. Callers that end jobs of several processes in one
-- transaction have locked them before (take_stuck.sql, take_held_by.sql).
--
-- Columns that are NULL for all of the jobs are given as '{}': a chunk of completed jobs pays for no column that it does not use.
-- `follows` is what comes after: NULL completes the job; 'again' queues it; 'last' leaves it to be moved to the dead letter queue;
-- 'cancel' cancels it where that was asked and else leaves it running. A job whose cancellation was asked is not queued again
-- and does not go to the dead letter queue: it is cancelled.
WITH given AS (
    SELECT * FROM unnest(
        CAST(:ids AS uuid[]), CAST(:attempts AS int[]), CAST(:follows AS text[]), CAST(:outcomes AS text[]),
        CAST(:outcomes_if_asked AS text[]), CAST(:results AS text[]), CAST(:results_as_sent AS text[]),
        CAST(:ran_from AS float8[]), CAST(:ran_until AS float8[]), CAST(:delays AS float8[]), CAST(:burns AS int[]),
        CAST(:sent AS bool[]), CAST(:summaries AS text[]), CAST(:error_types AS text[]), CAST(:error_messages AS text[]),
        CAST(:tracebacks AS text[]), CAST(:reasons AS text[]))
        AS given(id, attempt, follows, outcome, outcome_if_asked, result, result_as_sent, ran_from, ran_until, delay, burnt,
                 sent, summary, error_type, error_message, traceback, reason)),
ended AS (
    UPDATE jobs
       SET status = CASE WHEN follows IS NULL THEN 'completed'
                         WHEN cancel_requested_at IS NOT NULL THEN 'cancelled'
                         WHEN follows = 'again' THEN 'queued'
                         ELSE status END,
           finished_at = CASE WHEN follows IS NULL OR cancel_requested_at IS NOT NULL THEN now() END,
           lease_expires_at = CASE WHEN follows = 'last' AND cancel_requested_at IS NULL THEN lease_expires_at END,
           worker_id = CASE WHEN follows = 'last' AND cancel_requested_at IS NULL THEN worker_id END,
           result = CAST(given.result AS jsonb), result_as_sent = CAST(given.result_as_sent AS json),
           last_error = CASE WHEN follows IS NULL THEN NULL
                             WHEN follows = 'again' AND delay IS NULL THEN last_error
                             WHEN cancel_requested_at IS NOT NULL AND outcome_if_asked IS NOT NULL THEN last_error
                             ELSE coalesce(summary, last_error) END,
           retry_count = retry_count + CASE WHEN follows IS NULL OR cancel_requested_at IS NOT NULL THEN 0
                                            ELSE coalesce(burnt, 0) END,
           run_at = CASE WHEN delay IS NULL THEN run_at ELSE now() + make_interval(secs => delay) END,
           dispatched_at = CASE WHEN follows = 'again' THEN CASE WHEN sent AND cancel_requested_at IS NULL THEN now() END
                                ELSE dispatched_at END,
           updated_at = now()
      FROM given
     WHERE jobs.id = given.id AND (jobs.status = 'processing') IS TRUE AND jobs.attempt = given.attempt
       AND (SELECT before.attempt FROM job_attempts AS before
             WHERE before.job_id = given.id AND before.attempt = given.attempt) IS NULL
       AND (follows IS DISTINCT FROM 'cancel' OR cancel_requested_at IS NOT NULL)
    RETURNING jobs.id, jobs.attempt, jobs.last_attempt_at, jobs.status, jobs.task, jobs.queue, jobs.timeout, jobs.priority,
              outcome, outcome_if_asked, ran_from, ran_until, error_type, error_message, traceback, reason),
recorded AS (
    INSERT INTO job_attempts (job_id, attempt, worker_id, started_at, ended_at, outcome, error_type, error_message,
                              traceback, death_reason)
    SELECT id, attempt, :worker_id, last_attempt_at + make_interval(secs => coalesce(ran_from, 0)),
           CASE WHEN ran_until IS NULL THEN now() ELSE last_attempt_at + make_interval(secs => ran_until) END,
           CASE WHEN status = 'cancelled' THEN coalesce(outcome_if_asked, outcome) ELSE coalesce(outcome, 'completed') END,
           error_type, error_message, traceback, CASE WHEN status = 'processing' THEN reason END
      FROM ended
    ON CONFLICT (job_id, attempt) DO NOTHING
    RETURNING job_id)
SELECT id, status, task, queue, timeout, priority FROM ended WHERE id IN (SELECT job_id FROM recorded);
