"""Strict order by key, and ageing: `djps_take` claims in the order that a queue asks for.

Only adds. A queue that asks for neither is claimed from by the very statement of before. In the function there is one for each order;
they differ in what is looked at of a lane, and in nothing of how limits are judged.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

CONTRACT = "drops only what an interrupted run of this migration left behind: an index that nothing can use"

#: An attempt of it has begun since it was submitted, or queued again by hand: it comes first.
BEGUN = "status = 'queued' AND lane IS NOT NULL AND attempt > coalesce(attempts_before, 0)"

#: The job of a lane that must run before every other one of it, over all its tasks: one that was begun, due or not; else the first
#: that is due. A step into the index for each task and priority that the lane has.
_FIRST_IN_ORDER = """
CREATE OR REPLACE FUNCTION djps_first_in_order(p_lane bigint, moment timestamptz) RETURNS TABLE (id uuid, task text, run_at timestamptz)
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET enable_bitmapscan = off AS $$
#variable_conflict use_column
DECLARE
    this_task text;
    this_priority int;
    next_task text;
    next_priority int;
    this_id uuid;
    this_at timestamptz;
    first_id uuid;
    first_task text;
    first_at timestamptz;
BEGIN
    RETURN QUERY SELECT id, task, run_at FROM jobs_living WHERE lane = p_lane AND {begun} ORDER BY run_at, id LIMIT 1;
    IF FOUND THEN
        RETURN;
    END IF;
    SELECT task, priority INTO this_task, this_priority FROM jobs_living
     WHERE lane = p_lane AND status = 'queued' ORDER BY task, priority DESC LIMIT 1;
    WHILE this_task IS NOT NULL LOOP
        SELECT id, run_at INTO this_id, this_at FROM jobs_living
         WHERE lane = p_lane AND status = 'queued' AND task = this_task AND priority = this_priority AND run_at <= moment
           AND (expires_at IS NULL OR expires_at > moment OR attempt > 0)
         ORDER BY run_at, id LIMIT 1;
        IF FOUND AND (first_id IS NULL OR (this_at, this_id) < (first_at, first_id)) THEN
            first_id := this_id;
            first_task := this_task;
            first_at := this_at;
        END IF;
        SELECT task, priority INTO next_task, next_priority FROM jobs_living
         WHERE lane = p_lane AND status = 'queued' AND task = this_task AND priority < this_priority
         ORDER BY priority DESC LIMIT 1;
        IF NOT FOUND THEN
            SELECT task, priority INTO next_task, next_priority FROM jobs_living
             WHERE lane = p_lane AND status = 'queued' AND task > this_task ORDER BY task, priority DESC LIMIT 1;
        END IF;
        this_task := next_task;
        this_priority := next_priority;
    END LOOP;
    IF first_id IS NOT NULL THEN
        RETURN QUERY SELECT first_id, first_task, first_at;
    END IF;
END $$"""

#: The claim, with places for what differs by the order.
_CLAIM = """\
WITH first AS MATERIALIZED (
    -- That a lane is ready says that it is worth a look; whether its key has a slot is judged here, from the rows.
    SELECT ready.lane, place, paid_until, is_full, CASE WHEN is_full THEN 0 WHEN apart IS NULL THEN share
           ELSE greatest(0, least(share, floor((seconds - paid_until) / apart + burst + 1e-9)::int)) END AS share{ahead}
      FROM (SELECT lane, {share} AS share, row_number() OVER (ORDER BY turn, lane) AS place,
                   {is_full} AS is_full{its_ahead}
              FROM (SELECT lane, weight, turn, concurrency FROM lanes
                     WHERE queue = p_queue AND task = p_task AND state = 'ready' AND turn >= front - 1
                     ORDER BY turn, lane LIMIT most + {spare}) AS some_lanes{looks_ahead}) AS ready
      LEFT JOIN LATERAL (
           SELECT djps_paid_until(q.key_rate_per, coalesce((
                      SELECT next_start FROM lane_rates WHERE lane_rates.lane = ready.lane), 0), seconds) AS paid_until
            WHERE apart IS NOT NULL) AS rate ON true),
head AS MATERIALIZED (
    SELECT job.id AS head_id, first.lane AS head_lane, first.place{rank} FROM first CROSS JOIN LATERAL (
{heads}) AS job
     LIMIT most),
claimed AS (
    UPDATE jobs_living AS job
       SET status = 'processing', attempt = job.attempt + 1, worker_id = p_worker, last_attempt_at = moment,
           updated_at = moment, lease_expires_at = moment + make_interval(secs => p_lease), progress = NULL, ended_by = NULL
      FROM head WHERE job.id = head_id
    RETURNING {urgency}, job.id, job.task, coalesce(job.payload_as_sent, CAST(job.payload AS json)), job.queue,
              job.attempt, job.retry_count, job.max_retries, job.timeout, job.worker_id,
              extract(epoch FROM moment - job.run_at)::float8, job.request_id, job.backoff, job.traceparent,
              job.callback_of),
reached AS (
    SELECT CASE WHEN count(*) < most THEN 2147483647 ELSE max(place) END AS last_place, count(*) = most AS is_all FROM head),
served AS (
    SELECT first.lane, first.is_full, count(head_id) AS jobs,
           count(head_id) < first.share AND NOT (first.place = last_place AND is_all) AS is_empty,
           -- When the key may start its next job.
           first.paid_until + (count(head_id) + 1 - burst) * apart AS free_at, first.paid_until{ahead}
      FROM reached, first LEFT JOIN head ON head_lane = first.lane
     WHERE first.place <= last_place
     GROUP BY first.lane, first.is_full, first.share, first.place, first.paid_until, last_place, is_all{ahead}),
{others}charged AS (
    INSERT INTO lane_rates AS known (lane, next_start)
    SELECT served.lane, served.paid_until + served.jobs * apart FROM served WHERE apart IS NOT NULL AND served.jobs > 0
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
           SELECT CASE {blocked}WHEN min(next.run_at) < moment THEN moment + interval '100 ms' ELSE min(next.run_at) END AS run_at FROM generate_series(0, 9) AS level, LATERAL (
               SELECT waiting.run_at FROM jobs_living AS waiting
                WHERE waiting.lane = served.lane AND waiting.task = p_task AND waiting.status = 'queued'
                  AND waiting.priority = level AND NOT EXISTS (SELECT FROM head WHERE head_id = waiting.id)
                ORDER BY waiting.run_at LIMIT 1) AS next
            WHERE served.is_empty) AS later ON true
     WHERE lanes.lane = served.lane AND lanes.task = p_task)
SELECT * FROM claimed"""

#: The most urgent of a task of a lane, then the longest due.
_PLAIN = {
    "share": "greatest(1, ceil(quantum * weight))::int",
    "is_full": """coalesce(djps_lane_holders(lane, p_worker, coalesce(concurrency, q.key_concurrency))
                            >= coalesce(concurrency, q.key_concurrency), false)""",
    "heads": """\
        SELECT waiting.id FROM jobs_living AS waiting
         WHERE waiting.lane = first.lane AND waiting.task = p_task AND waiting.status = 'queued' AND waiting.run_at <= moment
           AND waiting.timeout <= p_timeout
           AND (waiting.expires_at IS NULL OR waiting.expires_at > moment OR waiting.attempt > 0)
         ORDER BY waiting.priority DESC, waiting.run_at, waiting.id LIMIT first.share FOR UPDATE SKIP LOCKED""",
    "spare": "16",
    "urgency": "job.priority",
    **dict.fromkeys(("ahead", "its_ahead", "looks_ahead", "rank", "others", "blocked"), ""),
}
#: Those that have waited longest, where each step of priority counts as so many seconds: a look at the first jobs of each priority.
_AGED = _PLAIN | {
    "heads": """\
        SELECT waiting.id, urgent.rank FROM (
            SELECT aged.id, row_number() OVER (ORDER BY aged.run_at - level * q.ageing * interval '1 second', level DESC, aged.id) AS rank
              FROM generate_series(0, 9) AS level, LATERAL (
                   SELECT job.id, job.run_at FROM jobs_living AS job
                    WHERE job.lane = first.lane AND job.task = p_task AND job.status = 'queued' AND job.priority = level
                      AND job.run_at <= moment AND job.timeout <= p_timeout
                      AND (job.expires_at IS NULL OR job.expires_at > moment OR job.attempt > 0)
                    ORDER BY job.run_at, job.id LIMIT first.share) AS aged
             ORDER BY rank LIMIT first.share) AS urgent, jobs_living AS waiting
         WHERE waiting.id = urgent.id AND (waiting.status = 'queued') IS TRUE FOR UPDATE OF waiting SKIP LOCKED""",
    "rank": ", job.rank",
    # The process runs them in this order.
    "urgency": "CAST(-head.rank AS smallint)",
}
#: The first in order, if it is of the task, due, and nothing of the key is processing: not even a job of this process, whose end may
#: be on record before it is final. It is chosen without a lock and then locked: one that is locked holds the others back.
_IN_ORDER = _PLAIN | {
    "share": "1",
    # A look at a lane costs more here, and one that is blocked is not looked at again.
    "spare": "4",
    "is_full": "EXISTS (SELECT FROM jobs_living AS held WHERE held.lane = some_lanes.lane AND held.status = 'processing')",
    "looks_ahead": " LEFT JOIN LATERAL djps_first_in_order(lane, moment) AS ahead ON true",
    "its_ahead": ", ahead.id AS ahead_id, ahead.task AS ahead_task, ahead.run_at AS ahead_at",
    "ahead": ", ahead_id, ahead_task, ahead_at",
    "heads": """\
        SELECT waiting.id FROM jobs_living AS waiting
         WHERE waiting.id = first.ahead_id AND first.ahead_task = p_task AND first.share > 0 AND (waiting.status = 'queued') IS TRUE
           AND waiting.run_at <= moment AND waiting.timeout <= p_timeout FOR UPDATE SKIP LOCKED""",
    "others": """\
others AS (
    -- What a key that runs now has of other tasks is looked at when that has ended.
    UPDATE lanes SET state = 'full', ready_at = NULL FROM served
     WHERE served.jobs > 0 AND lanes.lane = served.lane AND lanes.task <> p_task
       AND (lanes.state = 'ready' OR (lanes.state = 'timed' AND lanes.ready_at <= moment + interval '5 s'))),
""",
    # Who cancels what is ahead calls the lane; only a call that met a claim is made up for by these looks.
    "blocked": """WHEN min(next.run_at) IS NULL THEN NULL
                       WHEN served.ahead_at > moment THEN least(served.ahead_at, moment + interval '60 s')
                       WHEN served.ahead_task <> p_task THEN moment + interval '5 s'
                       """,
}

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
    -- The jobs of a key run strictly one after the other.
    ordered boolean;
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

    ordered := q.key_order IS NOT DISTINCT FROM 'fifo';
    IF ordered THEN
        q.key_concurrency := 1;
        -- What waits beside the lanes may be before what lies in them. The dispatcher files it within a moment.
        IF EXISTS (SELECT FROM jobs_living AS beside
                    WHERE beside.queue = p_queue AND beside.status = 'queued' AND beside.dispatched_at IS NULL AND beside.lane IS NULL)
           OR EXISTS (SELECT FROM jobs_living AS beside
                       WHERE beside.queue = p_queue AND beside.status = 'queued' AND beside.dispatched_at < 'infinity'
                         AND beside.lane IS NULL) THEN
            RETURN;
        END IF;
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
        IF ordered THEN
            RETURN QUERY
{in_order};
        ELSIF q.ageing IS NOT NULL THEN
            RETURN QUERY
{aged};
        ELSE
            RETURN QUERY
{plain};
        END IF;
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


def _take(claim: str = _CLAIM) -> str:
    """The function, with this claim for each order."""
    orders = {"plain": _PLAIN, "aged": _AGED, "in_order": _IN_ORDER}
    return _TAKE.format(**{name: claim.format(**what) for name, what in orders.items()})


def upgrade() -> None:
    """Applies this change while jobs are submitted and run; may be run again after it was interrupted."""
    op.add_column("jobs", sa.Column("attempts_before", sa.Integer()), if_not_exists=True)
    op.add_column("queues", sa.Column("key_order", sa.Text()), if_not_exists=True)
    op.add_column("queues", sa.Column("ageing", sa.Double()), if_not_exists=True)
    op.execute(_FIRST_IN_ORDER.format(begun=BEGUN))
    op.execute(_take())
    with op.get_context().autocommit_block():
        # What an interrupted run leaves behind is an index that is not valid.
        op.drop_index("jobs_lane_begun", "jobs_living", if_exists=True, postgresql_concurrently=True)
        op.create_index(
            "jobs_lane_begun",
            "jobs_living",
            ["lane", "run_at", "id"],
            postgresql_where=sa.text(BEGUN),
            postgresql_concurrently=True,
        )


def downgrade() -> None:
    """Takes this change back: keys that were in order run side by side."""
    before = op.get_context().opts["script"].get_revision("0019").module
    op.execute(before._TAKE.replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION"))  # noqa: SLF001 - the text of before
    op.execute("DROP FUNCTION djps_first_in_order")
    op.drop_index("jobs_lane_begun", "jobs_living")
    op.drop_column("queues", "ageing")
    op.drop_column("queues", "key_order")
    op.drop_column("jobs", "attempts_before")
