-- Messages that name a job: `dispatched_at` says when the last one was sent. Counts them, takes them back, sends them again.
--
-- Guard: the job is queued; a claimed one needs no message.
-- Locks: the rows of the jobs that change; `take_unclaimed` and `forget` leave out those that another session has locked.

-- name: count_named
-- Waiting jobs that a message names, counted up to `limit`; those that are set aside (aside.sql) have none. The order is
-- the index's, so that no other is chosen.
SELECT count(*) FROM (
    SELECT FROM jobs_living WHERE queue = :queue AND status = 'queued' AND dispatched_at < 'infinity'
     ORDER BY dispatched_at LIMIT :limit) AS named;

-- name: take_unclaimed
-- Jobs that were sent more than `age` seconds ago and never claimed: their message may be lost.
UPDATE jobs_living SET dispatched_at = now()
  FROM (SELECT id FROM jobs_living
         WHERE queue = :queue AND status = 'queued'
           AND dispatched_at < now() - make_interval(secs => :age) AND run_at <= now()
           AND (expires_at IS NULL OR expires_at > now() OR attempt > 0)
         ORDER BY dispatched_at
         LIMIT :limit FOR UPDATE SKIP LOCKED) AS unclaimed
 WHERE jobs_living.id = ANY(ARRAY[unclaimed.id])
RETURNING jobs_living.id, jobs_living.task, jobs_living.queue, jobs_living.timeout, jobs_living.priority, jobs_living.run_at;

-- name: mark_undispatched
-- Gives jobs whose message could not be sent back to the dispatcher.
UPDATE jobs_living SET dispatched_at = NULL WHERE id = ANY(CAST(:ids AS uuid[])) AND status = 'queued';

-- name: forget
-- Gives every job that was sent and not claimed back to the dispatcher: Redis lost its messages.
UPDATE jobs_living SET dispatched_at = NULL WHERE id IN (
    SELECT id FROM jobs_living WHERE status = 'queued' AND dispatched_at < 'infinity' FOR UPDATE SKIP LOCKED);

-- name: give_back_paused
-- Gives jobs back to the dispatcher whose message came while their queue or task was paused: it is gone, and they must not be
-- taken for sent when they are resumed.
UPDATE jobs_living SET dispatched_at = NULL
 WHERE id = ANY(CAST(:ids AS uuid[])) AND status = 'queued' AND dispatched_at < 'infinity'
   AND (queue = ANY(:closed_queues) OR task = ANY(:closed_tasks));
