-- Unique keys: which job holds each, and the end of those that count no more.
--
-- Whether a holder counts is read from its job's row, in a statement that begins once the key's row is locked: a statement that
-- waited for that lock still sees the jobs of the time before, and two submissions would both find the key free.
--
-- Guard: only who has locked a key's row changes it, and it names a job that is stored in the same transaction.
-- Locks: keys, in their order, before any idempotency key. `next` takes only those that no one else has, so `prune` waits for none;
-- it judges after the lock as submissions do.

-- name: lock
INSERT INTO unique_keys AS taken (key, job_id, until)
SELECT key, id, now()
  FROM (SELECT DISTINCT ON (key) key, id FROM unnest(CAST(:keys AS text[]), CAST(:ids AS uuid[])) AS given(key, id)
         ORDER BY key, id) AS sorted
ON CONFLICT (key) DO UPDATE SET until = taken.until WHERE false;

-- name: holders
SELECT taken.key, taken.job_id, taken.until > statement_timestamp(), job.status, job.attempt
  FROM unique_keys AS taken LEFT JOIN jobs_living AS job ON job.id = taken.job_id
 WHERE taken.key = ANY(CAST(:keys AS text[]));

-- name: take
UPDATE unique_keys AS taken SET job_id = given.id, until = now() + make_interval(secs => given.seconds)
  FROM unnest(CAST(:keys AS text[]), CAST(:ids AS uuid[]), CAST(:seconds AS float8[])) AS given(key, id, seconds)
 WHERE taken.key = given.key;

-- name: next
SELECT key FROM unique_keys WHERE key > :after ORDER BY key LIMIT :limit FOR UPDATE SKIP LOCKED;

-- name: prune
DELETE FROM unique_keys AS taken
 WHERE key = ANY(CAST(:keys AS text[])) AND until <= now()
   AND NOT EXISTS (SELECT FROM jobs_living AS job
                    WHERE job.id = taken.job_id AND job.status IN ('queued', 'processing'));
