-- Steps of workflows: those that wait are rows here and not in `jobs`; a job comes when its step begins.
--
-- Guard: as in `workflows.sql`; a step that begins or ends is as it was seen before.
-- Locks: none but those of the rows that are written; whatever changes a step holds the lock of its workflow.

-- name: insert
INSERT INTO workflow_steps (workflow_id, number, name, kind, spec, after, "when", on_failure, undoes, queue)
SELECT :workflow_id, number, name, kind, CAST(spec AS json), CAST(after AS int[]), "when", on_failure, undoes, queue
  FROM unnest(CAST(:numbers AS int[]), CAST(:names AS text[]), CAST(:kinds AS text[]), CAST(:specs AS text[]), CAST(:afters AS text[]),
              CAST(:whens AS text[]), CAST(:policies AS text[]), CAST(:undoes AS int[]), CAST(:queues AS text[]))
       AS given(number, name, kind, spec, after, "when", on_failure, undoes, queue);

-- name: all
SELECT number, name, kind, after, "when", on_failure, undoes, status, reason, is_asked, job_id, child_id, released_at, finished_at
  FROM workflow_steps WHERE workflow_id = :workflow_id ORDER BY number;

-- name: specs
-- What these steps were asked for.
SELECT number, spec, queue FROM workflow_steps WHERE workflow_id = :workflow_id AND number = ANY(CAST(:numbers AS int[]));

-- name: move
-- How steps stand from now on. The moments are those of the statement: the transaction may have begun before the ends that it saw.
UPDATE workflow_steps AS s
   SET status = g.status, reason = g.reason, is_asked = g.is_asked, job_id = g.job_id, child_id = g.child_id,
       released_at = CASE WHEN g.status IN ('waiting', 'skipped') THEN NULL
                          WHEN s.status IN ('waiting', 'skipped') THEN clock_timestamp() ELSE s.released_at END,
       finished_at = CASE WHEN g.status IN ('waiting', 'running') THEN NULL
                          WHEN s.status IN ('waiting', 'running') THEN clock_timestamp() ELSE s.finished_at END
  FROM unnest(CAST(:numbers AS int[]), CAST(:statuses AS text[]), CAST(:reasons AS text[]), CAST(:asked AS bool[]),
              CAST(:job_ids AS uuid[]), CAST(:child_ids AS uuid[]), CAST(:before AS text[]))
       AS g(number, status, reason, is_asked, job_id, child_id, before)
 WHERE s.workflow_id = :workflow_id AND s.number = g.number AND s.status = g.before;

-- name: jobs
-- How jobs stand now. By primary keys; of history only what ended at `since` or later.
SELECT id, status FROM jobs
 WHERE id = ANY(CAST(:ids AS uuid[])) AND (finished_at IS NULL OR finished_at >= :since);

-- name: results
SELECT id, coalesce(result_as_sent, CAST(result AS json)), result_note FROM jobs
 WHERE id = ANY(CAST(:ids AS uuid[])) AND (finished_at IS NULL OR finished_at >= :since);

-- name: size_of_results
-- Of the members of a batch, together.
SELECT coalesce(sum(octet_length(CAST(result AS text)) + 1), 0) FROM jobs WHERE group_id = :child_id AND finished_at >= :since;

-- name: results_of
-- Of the members of a batch, in the order of their ids.
SELECT coalesce(result_as_sent, CAST(result AS json)), result_note FROM jobs
 WHERE group_id = :child_id AND finished_at >= :since ORDER BY id;

-- name: children
-- How groups stand now that are steps.
SELECT id, status, finished_at IS NOT NULL FROM groups WHERE id = ANY(CAST(:ids AS uuid[]));
