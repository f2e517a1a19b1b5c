-- What handlers log: a row for what an attempt wrote within a second, up to a bound for each job.
--
-- Guard: none; a row is only added, and the last ones of a job are left.
-- Locks: those rows that are deleted.

-- name: write
-- Those who follow one of these jobs are told.
WITH given AS MATERIALIZED (
    SELECT * FROM unnest(CAST(:ids AS uuid[]), CAST(:attempts AS int[]), CAST(:befores AS int[]), CAST(:lines AS int[]),
                         CAST(:sizes AS int[]), CAST(:bodies AS text[]))
             AS given(job_id, attempt, before, lines, size, body)),
written AS (
    INSERT INTO job_logs (job_id, attempt, before, lines, size, body)
    SELECT job_id, attempt, before, lines, size, CAST(body AS json) FROM given)
SELECT pg_notify('djps_watched', CAST(id AS text)) FROM jobs_living WHERE id = ANY(CAST(:ids AS uuid[])) AND watched;

-- name: trim
-- All but the last `lines` lines or `size` bytes of these jobs. What is partly beyond stays; who reads leaves it out.
DELETE FROM job_logs
 USING (SELECT job_id, number, sum(lines) OVER later AS lines, sum(size) OVER later AS size
          FROM job_logs WHERE job_id = ANY(CAST(:ids AS uuid[]))
        WINDOW later AS (PARTITION BY job_id ORDER BY number DESC ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)) AS sums
 WHERE job_logs.job_id = sums.job_id AND job_logs.number = sums.number AND (sums.lines >= :lines OR sums.size >= :size);

-- name: read
SELECT number, attempt, before, lines, body FROM job_logs WHERE job_id = :id ORDER BY number;

-- name: prune
-- Of days that are over by `days` days, in UTC, as the partitions of history: no line is left of a job that went with its day.
DELETE FROM job_logs WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM job_logs
     WHERE written_at < date_trunc('day', (now() - make_interval(days => :days)) AT TIME ZONE 'UTC') AT TIME ZONE 'UTC'
     ORDER BY written_at LIMIT :limit));
