"""Faults of keys in order: the jobs of each run strictly one after the other, whatever fails, dies, is cancelled or is due later."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from http import HTTPStatus
from itertools import pairwise
from typing import NamedTuple

from ops.chaos.clients import Line
from ops.chaos.limit_changes import LimitChanges
from ops.chaos.limit_faults import flush_once, forge_tickets, kill_some
from ops.chaos.posts import Posted, Posts
from ops.chaos.stage import Broken, Stage

#: Jobs that may run at once, all keys together, and the jobs of each key.
SLOTS, KEYS, EACH = 4, 12, 14
#: Milliseconds each takes, and which of them fail once.
MS, FAILS_EVERY = 20, 7
#: A job of some keys is for later: so many seconds, and every how many keys.
LATER, LATER_EVERY = 8, 4
#: A job of some keys always fails, and waits for so long between two tries, seconds, until it is cancelled.
STUCK_KEYS, STUCK_FOR = 3, 120
#: Jobs behind each of those.
BEHIND = 3
#: Longest from the cancel of what a key waits for to its next start, seconds.
GOES_ON_WITHIN = 5.0
#: Longest that all of them take, with what is killed meanwhile, seconds.
DONE_WITHIN = 60.0
#: Children that are killed before each other fault.
KILLED = 3

# When the first attempt of each job was claimed, and when the job was final: in the order in which they were submitted, which their
# numbers say. Both moments are noted inside the transactions.
_RUNS = """
SELECT j.key, j.id::text, extract(epoch FROM began.at)::float8, extract(epoch FROM ended.at)::float8
  FROM jobs j
  LEFT JOIN LATERAL (SELECT min(at) AS at FROM transitions WHERE job_id = j.id AND new = 'processing') AS began ON true
  LEFT JOIN LATERAL (
       SELECT min(at) AS at FROM transitions WHERE job_id = j.id AND new IN ('completed', 'failed', 'cancelled')) AS ended ON true
 WHERE j.idempotency_key LIKE %s AND j.key LIKE 'order-%%' AND j.payload -> 'later' IS NULL
 ORDER BY j.key, (j.payload ->> 'seq')::bigint"""
_LATER = """
SELECT j.key, extract(epoch FROM j.created_at)::float8 + (j.payload ->> 'later')::float8, extract(epoch FROM began.at)::float8
  FROM jobs j LEFT JOIN LATERAL (SELECT min(at) AS at FROM transitions WHERE job_id = j.id AND new = 'processing') AS began ON true
 WHERE j.idempotency_key LIKE %s AND j.payload -> 'later' IS NOT NULL"""
_LEFT = "SELECT count(*) FROM jobs WHERE idempotency_key LIKE %s AND key LIKE 'order-%%' AND status IN ('queued', 'processing')"
_WAITS_AGAIN = "SELECT 1 FROM jobs WHERE id = %s AND status = 'queued' AND attempt > 0"


class Run(NamedTuple):
    """A job of a key; moments are seconds since 1970.

    Args:
        began: when its first attempt was claimed; None: none was.
        ended: when it was final; None: it is not.
    """

    key: str
    job_id: str
    began: float | None
    ended: float | None


def overtaken(runs: Iterable[Run]) -> Iterator[tuple[Run, Run]]:
    """The jobs that began before the one before them was final, each with that one.

    Args:
        runs: by key, and in each in the order in which they were submitted.

    Example:
        >>> [later.job_id for _, later in overtaken([Run("a", "1", 0, 2), Run("a", "2", 1, 3), Run("b", "3", 0, 1)])]
        ['2']
    """
    for before, later in pairwise(runs):
        if (
            before.key == later.key
            and later.began is not None
            and (before.ended is None or later.began < before.ended)
        ):
            yield before, later


def keys_in_order(stage: Stage) -> None:
    """Keys run in order while attempts fail, children die, Redis is flushed and tickets are forged; what blocks some is cancelled."""
    changes, posts = LimitChanges(stage), Posts(stage)
    with changes.limited({"concurrency": SLOTS, "keys": {"order": "fifo"}}):
        posts.post(_jobs(stage))
        _cancel_what_blocks(stage, posts)
        for fault in (flush_once, forge_tickets):
            kill_some(stage, KILLED)
            fault(stage)
            posts.post(_jobs(stage))
        like = f"{stage.prefix}-%"
        stage.await_that(
            lambda: stage.system.rows(_LEFT, like) == [(0,)],
            DONE_WITHIN,
            "the jobs of keys in order to be final",
            0.2,
        )
    _judge(stage)


def _jobs(stage: Stage) -> list[Posted]:
    """Some jobs of each key, of any priority, all keys mixed; the first of some is for later."""
    jobs: list[Posted] = []
    for number in range(EACH * KEYS):
        turn, key = divmod(number, KEYS)
        payload = {"task": "chaos.effect", "ms": MS, "fails": int((turn + key) % FAILS_EVERY == 0)}
        options = {"key": f"order-{key}", "priority": stage.rng.randrange(10)}
        if turn == 0 and key % LATER_EVERY == 0:
            jobs.append(("held", {**payload, "fails": 0, "later": LATER}, {**options, "delay": LATER}))
        jobs.append(("held", payload, options))
    return jobs


def _cancel_what_blocks(stage: Stage, posts: Posts) -> None:
    """What a key waits for is cancelled between two of its tries: the next one of the key starts."""
    for number in range(STUCK_KEYS):
        key = f"order-stuck-{number}"
        stuck = {"task": "chaos.effect", "ms": MS, "fails": 100}
        follows = {"task": "chaos.effect", "ms": MS, "fails": 0}
        blocks, after, *_ = posts.post(
            [
                ("dropped", stuck, {"key": key, "backoff": [STUCK_FOR]}),
                *([("held", follows, {"key": key})] * BEHIND),
            ]
        )
        stage.await_that(
            lambda job=blocks: stage.system.rows(_WAITS_AGAIN, job), DONE_WITHIN, "a job to wait again", 0.02
        )
        with stage.fault("what a key in order waits for is cancelled"):
            line = Line(stage.system.api_port)
            status, _, _ = line.ask("POST", f"/jobs/{blocks}/cancel")
            line.close()
        if status != HTTPStatus.OK:
            raise Broken(f"the cancel of a job that waits was answered {status}")
        cancelled = time.time()
        posts.await_final([after], DONE_WITHIN)
        waited = time.time() - cancelled
        if waited > GOES_ON_WITHIN * stage.slack:
            stage.broken["L11 a key stood still"] = (
                f"{key} went on {waited:.1f} s after what blocked it was cancelled"
            )


def _judge(stage: Stage) -> None:
    like = f"{stage.prefix}-%"
    runs = [Run(*row) for row in stage.system.rows(_RUNS, like)]
    out_of_order = list(overtaken(runs))
    stage.say(
        f"{len(runs)} jobs of keys in order; {len(out_of_order)} began before the one before them was final"
    )
    if out_of_order:
        before, later = out_of_order[0]
        stage.broken["L10 out of order"] = (
            f"{len(out_of_order)} jobs began before the one before them was final, as {later.job_id} of {later.key}"
            f" before {before.job_id}"
        )
    first = {run.key: run.began for run in reversed(runs)}
    late = [key for key, due, _ in stage.system.rows(_LATER, like) if first[key] is None or first[key] >= due]
    early = [key for key, due, began in stage.system.rows(_LATER, like) if began is not None and began < due]
    if late or early:
        stage.broken["L12 jobs for later"] = (
            f"jobs for later held back {', '.join(late) or 'none'}, and were early in {', '.join(early) or 'none'}"
        )
