"""Faults of batches: parts are added once, counts are those of the table, and each end is told once, whatever dies while it counts."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Any

import requests

from ops.chaos.database_faults import database_down
from ops.chaos.limit_faults import flush_once
from ops.chaos.process_faults import die_at, kill_once
from ops.chaos.repeated import Repeated, ask
from ops.chaos.stage import Stage
from ops.chaos.system import await_that

#: Parts of each batch, jobs of each part, and how many of a failing batch's part fail.
PARTS, JOBS, FAILING = 5, 40, 3
#: Where a process dies that counts: behind the counters, before what follows from them; and one that adds, behind the jobs.
PLACES = ("in-count", "in-adding")
#: Longest that batches get to end, seconds.
OVER_WITHIN = 60.0
#: What tells of batches is found by.
TAG = "of-a-batch"

# Batches whose counters are not what the table has, all counted.
_COUNTS = """
SELECT count(*) FROM groups g, LATERAL (
       SELECT count(*) AS total, count(*) FILTER (WHERE status = 'completed') AS completed,
              count(*) FILTER (WHERE status = 'failed') AS failed FROM jobs WHERE group_id = g.id) AS found
 WHERE g.kind = 'batch' AND (g.total, g.completed, g.failed) IS DISTINCT FROM (found.total, found.completed, found.failed)"""
_SIZES = "SELECT count(*) FROM groups WHERE kind = 'batch' AND total <> %s"
_LEFT = "SELECT count(*) FROM groups WHERE kind = 'batch' AND finished_at IS NULL"
_NOTES = "SELECT count(*) FROM group_ends"
# What each batch was told as often as it should: of a failure and the end where some fail, else of the end and its success.
_TOLD = """
SELECT count(*) FROM groups g, LATERAL (
       SELECT count(*) FILTER (WHERE payload #>> '{batch,event}' = 'failure') AS failure,
              count(*) FILTER (WHERE payload #>> '{batch,event}' = 'complete') AS complete,
              count(*) FILTER (WHERE payload #>> '{batch,event}' = 'success') AS success
         FROM jobs WHERE tags @> ARRAY[%s] AND payload #>> '{batch,id}' = g.id::text) AS told
 WHERE g.kind = 'batch' AND (told.failure, told.complete, told.success)
       IS DISTINCT FROM (CASE WHEN g.name = 'fails' THEN 1 ELSE 0 END::bigint, 1::bigint, CASE WHEN g.name = 'fails' THEN 0 ELSE 1 END::bigint)"""


class Filler(Repeated):
    """Fills batches in parts, each sent twice, until it is told to end."""

    def once(self) -> None:
        """Fills one; every second one fails."""
        self._batch(fails=self.done % 2 == 1)

    def _batch(self, *, fails: bool) -> None:
        events = {
            f"on_{event}": {"payload": {"task": "noop"}, "tags": [TAG]}
            for event in ("failure", "complete", "success")
        }
        name = "fails" if fails else "completes"
        key = {"Idempotency-Key": f"batch-{self.done}"}
        send = lambda: ask(self.stage, "/batches", {"name": name, **events}, key)  # noqa: E731
        (made, again) = send(), send()
        self.unlike += made["id"] != again["id"]
        path = f"/batches/{made['id']}"
        for part in range(PARTS):
            body = {"part": str(part), "jobs": _jobs(fails=fails)}
            first, second = (ask(self.stage, f"{path}/jobs", body) for _ in range(2))
            self.unlike += first != second
        if self.done % 4 == 0:
            # Closed when nothing is left to end: who closes it finds its end.
            self.stage.await_that(lambda: _open(self.stage, path) <= 0, OVER_WITHIN, "members to end")
        ask(self.stage, f"{path}/close", None)


def _jobs(*, fails: bool) -> list[dict[str, Any]]:
    failing = FAILING if fails else 0
    return [{"payload": {"task": "fail"}, "max_retries": 0}] * failing + [{"payload": {"task": "noop"}}] * (
        JOBS - failing
    )


def batches_count_once(stage: Stage) -> None:
    """Batches are filled in parts that are sent twice, while what adds, runs and counts is killed, Redis is flushed and PostgreSQL restarts."""
    with ExitStack() as stack:
        stage.system.start("second-maintenance")
        stack.callback(stage.system.stop, "second-maintenance")
        with Filler(stage) as filler:
            stage.hold(2)
            for fault in (
                kill_once("maintenance"),
                die_at(*PLACES),
                kill_once("worker"),
                flush_once,
                kill_once("second-maintenance"),
                database_down(1, immediate=True),
                kill_once("maintenance"),
            ):
                fault(stage)
                stage.hold(stage.rng.uniform(1, 2))
            stage.hold(1)
        _judge(stage, filler)


def _open(stage: Stage, path: str) -> int:
    """How many members of a batch have not ended; all of them while no one says."""
    with suppress(requests.RequestException, KeyError, ValueError):
        return int(requests.get(stage.system.url + path, timeout=10).json()["open"])
    return PARTS * JOBS


def _judge(stage: Stage, filler: Filler) -> None:
    """Each batch has what was sent to it once, its counters are those of the table, and it has told of each event once."""
    one: Callable[..., int] = lambda query, *values: int(stage.system.rows(query, *values)[0][0])  # noqa: E731
    with suppress(TimeoutError):
        await_that(lambda: one(_LEFT) == 0 and one(_NOTES) == 0, OVER_WITHIN * stage.slack, "batches to end")
    if filler.error is not None:
        stage.broken["L16 batches not filled"] = str(filler.error)
    stage.say(f"{filler.done} batches of {PARTS} parts and {JOBS * PARTS} jobs")
    if wrong := one(_SIZES, PARTS * JOBS) + filler.unlike:
        stage.broken["L16 parts added twice or lost"] = f"{wrong} batches or answers are not what was sent"
    if wrong := one(_COUNTS):
        stage.broken["L17 counts"] = f"{wrong} batches count otherwise than the table does"
    if wrong := one(_TOLD, TAG):
        stage.broken["L18 told"] = f"{wrong} batches told of an event twice, or not at all"
    if left := one(_LEFT):
        stage.broken["L17 batches left"] = f"{left} batches are not over, though all their members have ended"
