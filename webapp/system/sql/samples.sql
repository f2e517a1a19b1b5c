-- Samples of what hosts have counted: written each ten seconds, folded to minutes and hours, read by their primary key.
--
-- Guard: a host's second sample of a moment is added to the first. What is folded is deleted in the transaction that folds it.
-- Locks: one session folds at a time (`may_fold`).

-- name: span_of_now
SELECT date_bin('10 seconds', now(), 'epoch');

-- name: add
INSERT INTO samples AS known (span, at, host, figures)
VALUES (:span, :at, :host, CAST(:figures AS jsonb))
ON CONFLICT (span, at, host) DO NOTHING RETURNING at;

-- name: locked
SELECT figures FROM samples WHERE span = :span AND at = :at AND host = :host FOR UPDATE;

-- name: replace
UPDATE samples SET figures = CAST(:figures AS jsonb) WHERE span = :span AND at = :at AND host = :host;

-- name: may_fold
SELECT pg_try_advisory_xact_lock(:lock);

-- name: take
-- The oldest of one span whose larger span is over since so long.
DELETE FROM samples WHERE (span, at, host) IN (
    SELECT span, at, host FROM samples
     WHERE span = :span AND at < date_bin(make_interval(secs => :into), now() - make_interval(secs => :kept), 'epoch')
     ORDER BY span, at, host LIMIT :limit)
RETURNING date_bin(make_interval(secs => :into), at, 'epoch'), host, figures;

-- name: forget
DELETE FROM samples WHERE span = :span AND at < now() - make_interval(secs => :kept);

-- name: counts
-- A series of one number, of all hosts.
SELECT date_bin(make_interval(secs => :step), at, CAST(:since AS timestamptz)), sum(CAST(figures ->> :name AS float8))
  FROM samples WHERE span IN (10, 60, 3600) AND at >= CAST(:since AS timestamptz) AND at < CAST(:until AS timestamptz) AND figures ? :name
 GROUP BY 1 ORDER BY 1;

-- name: buckets
-- A series with a distribution: how much each bucket grew, of the pairs of task and queue that are wanted.
SELECT date_bin(make_interval(secs => :step), at, CAST(:since AS timestamptz)), bucket.place, sum(CAST(bucket.count AS float8))
  FROM samples, jsonb_each(figures -> :name) AS pair(name, counts),
       jsonb_array_elements_text(pair.counts) WITH ORDINALITY AS bucket(count, place)
 WHERE span IN (10, 60, 3600) AND at >= CAST(:since AS timestamptz) AND at < CAST(:until AS timestamptz) AND figures ? :name
   AND (CAST(:task AS text) IS NULL OR split_part(pair.name, ' ', 1) = :task)
   AND (CAST(:queue AS text) IS NULL OR split_part(pair.name, ' ', 2) = :queue)
 GROUP BY 1, 2 ORDER BY 1, 2;
