"""A rate of a single key, and the jobs that unique keys name by an index. Only adds: a key without a rate of its own goes by its queue's.

`djps_take` reads a lane's own rate beside its concurrency, and `djps_wake_lanes` gives a new lane that of its key. What has changed in the two functions is in
`CHANGES`; all else is as in 0019.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0020"
branch_labels = None
depends_on = None

CONTRACT = "drops only what an interrupted run of this migration left behind: an index that nothing can use"

#: Tables of keys and their lanes: both know the rate, as both know the concurrency.
TABLES = ("key_limits", "lanes")
RATE = {"rate_limit": sa.Integer, "rate_per": sa.Double, "rate_burst": sa.Integer}

#: What stood in the functions before, and what stands there now.
CHANGES = (
    (
        """            SELECT ready.lane, place, paid_until, is_full, CASE WHEN is_full THEN 0 WHEN apart IS NULL THEN share
                   ELSE greatest(0, least(share, floor((seconds - paid_until) / apart + burst + 1e-9)::int)) END AS share""",
        """            SELECT ready.lane, place, paid_until, is_full, CASE WHEN is_full THEN 0 WHEN ready.apart IS NULL THEN share
                   ELSE greatest(0, least(share, floor((seconds - paid_until) / ready.apart + ready.burst + 1e-9)::int)) END AS share,
                   ready.apart, ready.burst""",
    ),
    (
        """                                    >= coalesce(concurrency, q.key_concurrency), false) AS is_full
                      FROM (SELECT lane, weight, turn, concurrency FROM lanes""",
        """                                    >= coalesce(concurrency, q.key_concurrency), false) AS is_full,
                           coalesce(rate_per, q.key_rate_per) AS per, coalesce(rate_per / rate_limit, apart) AS apart,
                           CASE WHEN rate_limit IS NULL THEN burst ELSE coalesce(rate_burst, greatest(1, rate_limit / 40)) END AS burst
                      FROM (SELECT lane, weight, turn, concurrency, rate_limit, rate_per, rate_burst FROM lanes""",
    ),
    (
        """                   SELECT djps_paid_until(q.key_rate_per, coalesce((
                              SELECT next_start FROM lane_rates WHERE lane_rates.lane = ready.lane), 0), seconds) AS paid_until
                    WHERE apart IS NOT NULL) AS rate ON true),""",
        """                   SELECT djps_paid_until(ready.per, coalesce((
                              SELECT next_start FROM lane_rates WHERE lane_rates.lane = ready.lane), 0), seconds) AS paid_until
                    WHERE ready.apart IS NOT NULL) AS rate ON true),""",
    ),
    (
        """                   first.paid_until + (count(head_id) + 1 - burst) * apart AS free_at, first.paid_until""",
        """                   first.paid_until + (count(head_id) + 1 - first.burst) * first.apart AS free_at, first.paid_until, first.apart""",
    ),
    (
        """             GROUP BY first.lane, first.is_full, first.share, first.place, first.paid_until, last_place, is_all),""",
        """             GROUP BY first.lane, first.is_full, first.share, first.place, first.paid_until, first.apart, first.burst, last_place, is_all),""",
    ),
    (
        """            SELECT served.lane, served.paid_until + served.jobs * apart FROM served WHERE apart IS NOT NULL AND served.jobs > 0""",
        """            SELECT served.lane, served.paid_until + served.jobs * served.apart FROM served WHERE served.apart IS NOT NULL AND served.jobs > 0""",
    ),
    (
        """    INSERT INTO lanes AS known (lane, task, queue, key, state, turn, timeout, weight, concurrency)""",
        """    INSERT INTO lanes AS known (lane, task, queue, key, state, turn, timeout, weight, concurrency, rate_limit, rate_per, rate_burst)""",
    ),
    (
        """           coalesce(mine.turn, 0) - 1, called.timeout, coalesce(limits.weight, 1), limits.concurrency""",
        """           coalesce(mine.turn, 0) - 1, called.timeout, coalesce(limits.weight, 1), limits.concurrency,
           limits.rate_limit, limits.rate_per, limits.rate_burst""",
    ),
)

_TAKE = """
CREATE OR REPLACE FUNCTION djps_take(p_queue text, p_task text, p_timeout float8, p_limit int, p_worker text, p_lease float8)
RETURNS TABLE (priority smallint, id uuid, task text, payload json, queue text, attempt int, retry_count int, max_retries int,
               timeout float8, worker_id text, waited float8, request_id text, backoff jsonb, traceparent text, callback_of uuid)
LANGUAGE plpgsql
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    q queues;
    t task_limits;
    moment timestamptz;
    seconds float8;
    most int := p_limit;
    front float8;
    lanes_found int;
    lanes_apart int;
    quantum int;
    -- Seconds between two starts of a key, and how many may come at once; NULL where keys have no rate.
    apart float8;
    burst int;
    taken int := 0;
    passes int := 0;
BEGIN
    -- A look that locks nothing and writes nothing: most of those that come in vain end here.
    SELECT * INTO q FROM queues WHERE name = p_queue;
    SELECT * INTO t FROM task_limits WHERE task_limits.task = p_task;
    IF q.paused_at IS NOT NULL OR t.paused_at IS NOT NULL
       OR djps_queue_holders(p_queue, p_worker, q.concurrency) >= q.concurrency
       OR djps_task_holders(p_task, p_worker, t.concurrency) >= t.concurrency THEN
        RETURN;
    END IF;

    -- The gate: one at a time, until the commit. What follows sees all that those before have committed.
    IF q.name IS NULL THEN
        INSERT INTO queues (name) VALUES (p_queue) ON CONFLICT DO NOTHING;
    END IF;
    SELECT * INTO q FROM queues WHERE name = p_queue FOR NO KEY UPDATE;
    -- A limit that the task got during the wait holds.
    SELECT * INTO t FROM task_limits WHERE task_limits.task = p_task;
    IF t.is_limited THEN
        SELECT * INTO t FROM task_limits WHERE task_limits.task = p_task FOR NO KEY UPDATE;
    END IF;
    -- Not now(): that is before the wait for the gate, when what was submitted meanwhile was not yet due.
    moment := clock_timestamp();
    seconds := extract(epoch FROM moment);
    IF q.paused_at IS NOT NULL OR t.paused_at IS NOT NULL
       OR djps_queue_holders(p_queue, p_worker, q.concurrency) >= q.concurrency
       OR djps_task_holders(p_task, p_worker, t.concurrency) >= t.concurrency THEN
        RETURN;
    END IF;
    most := least(most, djps_allowed(q.rate_limit, q.rate_per, q.rate_burst, q.next_start, seconds),
                  djps_allowed(t.rate_limit, t.rate_per, t.rate_burst, t.next_start, seconds));
    IF most < 1 THEN
        RETURN;
    END IF;

    INSERT INTO lane_turns AS mine (queue, task) VALUES (p_queue, p_task) ON CONFLICT DO NOTHING;
    SELECT mine.turn INTO front FROM lane_turns AS mine WHERE mine.queue = p_queue AND mine.task = p_task;
    PERFORM djps_wake_lanes(p_queue, p_worker, q.key_concurrency, moment);

    IF q.key_rate_limit IS NOT NULL THEN
        apart := q.key_rate_per / q.key_rate_limit;
        burst := coalesce(q.key_rate_burst, greatest(1, q.key_rate_limit / 40));
    END IF;

    -- The first lanes in the order of their turns, and the first jobs of each. Lanes that are found empty leave, so each pass comes on.
    WHILE taken = 0 AND passes < 20 LOOP
        passes := passes + 1;
        SELECT count(*) INTO lanes_found FROM (
            SELECT FROM lanes WHERE queue = p_queue AND task = p_task AND state = 'ready' AND turn >= front - 1 LIMIT most) AS few;
        EXIT WHEN lanes_found = 0;
        IF q.key_concurrency IS NOT NULL THEN
            -- A chunk keeps the keys it touches from the other processes: it leaves them their share of the lanes.
            SELECT count(*) / coalesce(q.concurrency, 16) INTO lanes_apart FROM (
                SELECT FROM lanes WHERE queue = p_queue AND task = p_task AND state = 'ready' AND turn >= front - 1
                 LIMIT most * coalesce(q.concurrency, 16)) AS few;
            lanes_found := least(lanes_found, greatest(1, lanes_apart));
        END IF;
        quantum := ceil(most::float8 / lanes_found);
        RETURN QUERY
        WITH first AS MATERIALIZED (
            -- That a lane is ready says that it is worth a look; whether its key has a slot is judged here, from the rows.
            SELECT ready.lane, place, paid_until, is_full, CASE WHEN is_full THEN 0 WHEN ready.apart IS NULL THEN share
                   ELSE greatest(0, least(share, floor((seconds - paid_until) / ready.apart + ready.burst + 1e-9)::int)) END AS share,
                   ready.apart, ready.burst
              FROM (SELECT lane, greatest(1, ceil(quantum * weight))::int AS share, row_number() OVER (ORDER BY turn, lane) AS place,
                           coalesce(djps_lane_holders(lane, p_worker, coalesce(concurrency, q.key_concurrency))
                                    >= coalesce(concurrency, q.key_concurrency), false) AS is_full,
                           coalesce(rate_per, q.key_rate_per) AS per, coalesce(rate_per / rate_limit, apart) AS apart,
                           CASE WHEN rate_limit IS NULL THEN burst ELSE coalesce(rate_burst, greatest(1, rate_limit / 40)) END AS burst
                      FROM (SELECT lane, weight, turn, concurrency, rate_limit, rate_per, rate_burst FROM lanes
                             WHERE queue = p_queue AND task = p_task AND state = 'ready' AND turn >= front - 1
                             ORDER BY turn, lane LIMIT most + 16) AS some_lanes) AS ready
              LEFT JOIN LATERAL (
                   SELECT djps_paid_until(ready.per, coalesce((
                              SELECT next_start FROM lane_rates WHERE lane_rates.lane = ready.lane), 0), seconds) AS paid_until
                    WHERE ready.apart IS NOT NULL) AS rate ON true),
        head AS MATERIALIZED (
            SELECT job.id AS head_id, first.lane AS head_lane, first.place FROM first CROSS JOIN LATERAL (
                SELECT waiting.id FROM jobs_living AS waiting
                 WHERE waiting.lane = first.lane AND waiting.task = p_task AND waiting.status = 'queued' AND waiting.run_at <= moment
                   AND waiting.timeout <= p_timeout
                   AND (waiting.expires_at IS NULL OR waiting.expires_at > moment OR waiting.attempt > 0)
                 ORDER BY waiting.priority DESC, waiting.run_at, waiting.id LIMIT first.share FOR UPDATE SKIP LOCKED) AS job
             LIMIT most),
        claimed AS (
            UPDATE jobs_living AS job
               SET status = 'processing', attempt = job.attempt + 1, worker_id = p_worker, last_attempt_at = moment,
                   updated_at = moment, lease_expires_at = moment + make_interval(secs => p_lease), progress = NULL, ended_by = NULL
              FROM head WHERE job.id = head_id
            RETURNING job.priority, job.id, job.task, coalesce(job.payload_as_sent, CAST(job.payload AS json)), job.queue,
                      job.attempt, job.retry_count, job.max_retries, job.timeout, job.worker_id,
                      extract(epoch FROM moment - job.run_at)::float8, job.request_id, job.backoff, job.traceparent,
                      job.callback_of),
        reached AS (
            SELECT CASE WHEN count(*) < most THEN 2147483647 ELSE max(place) END AS last_place, count(*) = most AS is_all FROM head),
        served AS (
            SELECT first.lane, first.is_full, count(head_id) AS jobs,
                   count(head_id) < first.share AND NOT (first.place = last_place AND is_all) AS is_empty,
                   -- When the key may start its next job.
                   first.paid_until + (count(head_id) + 1 - first.burst) * first.apart AS free_at, first.paid_until, first.apart
              FROM reached, first LEFT JOIN head ON head_lane = first.lane
             WHERE first.place <= last_place
             GROUP BY first.lane, first.is_full, first.share, first.place, first.paid_until, first.apart, first.burst, last_place, is_all),
        charged AS (
            INSERT INTO lane_rates AS known (lane, next_start)
            SELECT served.lane, served.paid_until + served.jobs * served.apart FROM served WHERE served.apart IS NOT NULL AND served.jobs > 0
                ON CONFLICT (lane) DO UPDATE SET next_start = excluded.next_start),
        paid AS (
            UPDATE lanes
               SET turn = lanes.turn + served.jobs / lanes.weight,
                   ready_at = CASE WHEN served.is_empty THEN later.run_at WHEN served.free_at > seconds THEN to_timestamp(free_at) END,
                   state = CASE
                       -- Also where nothing waits: what comes meanwhile finds it full.
                       WHEN served.is_full
                         OR served.jobs > 0 AND djps_lane_holders(lanes.lane, p_worker, coalesce(lanes.concurrency, q.key_concurrency))
                            + 1 >= coalesce(lanes.concurrency, q.key_concurrency) THEN 'full'
                       WHEN served.is_empty AND later.run_at IS NULL THEN 'idle'
                       WHEN served.is_empty OR served.free_at > seconds THEN 'timed'
                       ELSE 'ready' END
              FROM served LEFT JOIN LATERAL (
                   -- What is due and was not taken has expired, or another session has locked it: it is looked at again soon.
                   SELECT CASE WHEN min(next.run_at) < moment THEN moment + interval '100 ms' ELSE min(next.run_at) END AS run_at FROM generate_series(0, 9) AS level, LATERAL (
                       SELECT waiting.run_at FROM jobs_living AS waiting
                        WHERE waiting.lane = served.lane AND waiting.task = p_task AND waiting.status = 'queued'
                          AND waiting.priority = level AND NOT EXISTS (SELECT FROM head WHERE head_id = waiting.id)
                        ORDER BY waiting.run_at LIMIT 1) AS next
                    WHERE served.is_empty) AS later ON true
             WHERE lanes.lane = served.lane AND lanes.task = p_task)
        SELECT * FROM claimed;
        GET DIAGNOSTICS taken = ROW_COUNT;
    END LOOP;

    IF taken > 0 THEN
        UPDATE lane_turns AS mine
           SET turn = greatest(mine.turn, (
               SELECT lanes.turn FROM lanes WHERE lanes.queue = p_queue AND lanes.task = p_task AND state = 'ready'
                  AND lanes.turn >= front - 1 ORDER BY lanes.turn LIMIT 1))
         WHERE mine.queue = p_queue AND mine.task = p_task;
        IF q.rate_limit IS NOT NULL THEN
            UPDATE queues SET next_start = djps_paid_until(q.rate_per, q.next_start, seconds) + taken * q.rate_per / q.rate_limit
             WHERE name = p_queue;
        END IF;
        IF t.rate_limit IS NOT NULL THEN
            UPDATE task_limits
               SET next_start = djps_paid_until(t.rate_per, t.next_start, seconds) + taken * t.rate_per / t.rate_limit
             WHERE task_limits.task = p_task;
        END IF;
    END IF;
END $$"""

#: Behind the gate: lanes that were called since, lanes whose moment has come, lanes whose key has a slot again.
_WAKE_LANES = """
CREATE OR REPLACE FUNCTION djps_wake_lanes(p_queue text, p_worker text, p_key_concurrency int, moment timestamptz) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    -- One that was called or has waited for its moment comes before those that wait for their turn already: it asks for little, or
    -- its turn has moved on with what it had (RFC 8290 has new flows first, too).
    WITH oldest AS (
        SELECT ctid FROM lane_wakeups WHERE queue = p_queue LIMIT 5000),
    called AS (
        DELETE FROM lane_wakeups USING oldest WHERE lane_wakeups.ctid = oldest.ctid
        RETURNING lane_wakeups.lane, lane_wakeups.task, lane_wakeups.key, lane_wakeups.timeout)
    INSERT INTO lanes AS known (lane, task, queue, key, state, turn, timeout, weight, concurrency, rate_limit, rate_per, rate_burst)
    SELECT called.lane, called.task, p_queue, called.key, CASE WHEN limits.paused_at IS NULL THEN 'ready' ELSE 'paused' END,
           coalesce(mine.turn, 0) - 1, called.timeout, coalesce(limits.weight, 1), limits.concurrency,
           limits.rate_limit, limits.rate_per, limits.rate_burst
      FROM (SELECT lane, task, min(key) AS key, max(timeout) AS timeout FROM called GROUP BY lane, task) AS called
      LEFT JOIN lane_turns AS mine ON mine.queue = p_queue AND mine.task = called.task
      LEFT JOIN key_limits AS limits ON limits.queue = p_queue AND limits.key = called.key
        ON CONFLICT (lane, task) DO UPDATE
       SET timeout = greatest(known.timeout, excluded.timeout),
           turn = CASE WHEN known.state IN ('ready', 'full') THEN known.turn ELSE greatest(known.turn, excluded.turn) END,
           ready_at = NULL,
           state = CASE WHEN known.state IN ('idle', 'timed') THEN 'ready' ELSE known.state END;
    UPDATE lanes
       SET state = 'ready', ready_at = NULL,
           turn = greatest(turn, (SELECT mine.turn - 1 FROM lane_turns AS mine
                                   WHERE mine.queue = lanes.queue AND mine.task = lanes.task))
     WHERE queue = p_queue AND state = 'timed' AND ready_at <= moment;
    UPDATE lanes
       SET state = 'ready',
           turn = greatest(turn, (SELECT mine.turn FROM lane_turns AS mine
                                   WHERE mine.queue = lanes.queue AND mine.task = lanes.task))
     WHERE queue = p_queue AND state = 'full'
       AND coalesce(djps_lane_holders(lane, p_worker, coalesce(concurrency, p_key_concurrency))
                    < coalesce(concurrency, p_key_concurrency), true);
END $$"""


def _before(function: str) -> str:
    """A function as it was."""
    for before, now in CHANGES:
        function = function.replace(now, before)
    return function


def upgrade() -> None:
    """Applies this change; may be run again after it was interrupted."""
    for table in TABLES:
        for name, kind in RATE.items():
            op.add_column(table, sa.Column(name, kind()), if_not_exists=True)
    for function in (_WAKE_LANES, _TAKE):
        op.execute(function)
    with op.get_context().autocommit_block():
        op.drop_index("unique_keys_by_job", "unique_keys", if_exists=True, postgresql_concurrently=True)
        op.create_index("unique_keys_by_job", "unique_keys", ["job_id"], postgresql_concurrently=True)


def downgrade() -> None:
    """Takes this change back: keys have the rates of their queues."""
    op.drop_index("unique_keys_by_job", "unique_keys")
    for function in (_WAKE_LANES, _TAKE):
        op.execute(_before(function))
    for table in TABLES:
        for name in RATE:
            op.drop_column(table, name)
