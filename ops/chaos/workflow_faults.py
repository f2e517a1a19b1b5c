"""Faults of workflows: each step begins once and soon after those before it have ended, whatever dies while workflows are moved on."""

from __future__ import annotations

import time
from contextlib import ExitStack, suppress
from typing import Any

from ops.chaos.database_faults import database_down
from ops.chaos.limit_faults import flush_once
from ops.chaos.process_faults import die_at, kill_once
from ops.chaos.repeated import Repeated, ask
from ops.chaos.stage import Stage
from ops.chaos.system import await_that

#: Steps side by side, and one after the other, of each workflow.
WIDE, LONG = 6, 3
#: Workflows that run at once at most.
AT_ONCE = 12
#: Seconds between two looks whether there is room for another.
LOOK_PAUSE = 0.05
#: Where a process dies: before a workflow is moved on, behind the jobs that begin, and behind the commit, before workers are told.
PLACES = ("before-advance", "in-advance", "behind-advance")
#: Longest that a step waits after the last of those before it has ended, and what an outage of PostgreSQL adds to that, seconds.
LATE, OUTAGE = 3.0, 3.0
#: Longest that workflows get to end, seconds.
OVER_WITHIN = 60.0

_LEFT = "SELECT count(*) FROM groups WHERE kind = 'workflow' AND finished_at IS NULL"
_ENDED = "SELECT count(*) FROM groups WHERE kind = 'workflow' AND status <> 'completed'"
# Steps that did not run, or whose job is not theirs alone.
_STEPS = """
SELECT count(*) FROM workflow_steps s WHERE NOT EXISTS (
       SELECT FROM jobs WHERE jobs.id = s.job_id AND jobs.group_id = s.workflow_id)
    OR EXISTS (SELECT FROM workflow_steps other WHERE other.job_id = s.job_id AND (other.workflow_id, other.number) <> (s.workflow_id, s.number))"""
_UNASKED = """
SELECT count(*) FROM jobs JOIN groups g ON g.id = jobs.group_id AND g.kind = 'workflow'
 WHERE NOT EXISTS (SELECT FROM workflow_steps s WHERE s.job_id = jobs.id)"""
# Begun before one of those before it had ended.
_EARLY = """
SELECT count(*) FROM workflow_steps s, unnest(s.after) AS before
  JOIN workflow_steps p ON p.number = before JOIN jobs j ON j.id = p.job_id
 WHERE p.workflow_id = s.workflow_id AND (j.finished_at IS NULL OR s.released_at < j.finished_at)"""
# From the last end before a step to its beginning, seconds since the epoch each, of those that waited.
_WAITED = """
SELECT extract(epoch FROM max(j.finished_at))::float8, extract(epoch FROM s.released_at)::float8
  FROM workflow_steps s, unnest(s.after) AS before
  JOIN workflow_steps p ON p.number = before JOIN jobs j ON j.id = p.job_id
 WHERE p.workflow_id = s.workflow_id GROUP BY s.workflow_id, s.number, s.released_at
HAVING s.released_at - max(j.finished_at) > make_interval(secs => %s)"""


class Poster(Repeated):
    """Posts workflows, each twice under one key, until it is told to end."""

    def once(self) -> None:
        """Posts one, as soon as there are not too many."""
        while self.is_on and self._are_many():
            time.sleep(LOOK_PAUSE)
        body = {"name": f"w{self.done}", "steps": _steps(self.done)}
        key = {"Idempotency-Key": f"workflow-{self.done}"}
        first, second = (ask(self.stage, "/workflows", body, key) for _ in range(2))
        self.unlike += first["id"] != second["id"]

    def _are_many(self) -> bool:
        """True if as many run as may; while PostgreSQL is away that is not known."""
        with suppress(Exception):
            return bool(self.stage.system.rows(_LEFT)[0][0] >= AT_ONCE)
        return False


def _steps(number: int) -> dict[str, Any]:
    """A fan-out, a fan-in and a chain; a step of every third fails and is tolerated, one of every fourth fails at first."""
    effect = {"task": "chaos.effect", "ms": 5, "seq": -1}
    steps: dict[str, Any] = {"root": {"payload": effect}}
    for one in range(WIDE):
        steps[f"wide{one}"] = {"payload": effect, "after": ["root"]}
    if number % 3 == 0:
        failing = {"payload": {"task": "fail"}, "max_retries": 0, "on_failure": "continue"}
        steps["wide0"] = {"after": ["root"], **failing}
    if number % 4 == 0:
        steps["wide1"]["payload"] = effect | {"fails": 1}
    inputs = {f"of{one}": {"step": f"wide{one}"} for one in range(WIDE)}
    steps["sink"] = {"payload": effect, "after": [f"wide{one}" for one in range(WIDE)], "inputs": inputs}
    for one in range(LONG):
        before = f"long{one - 1}" if one else "sink"
        steps[f"long{one}"] = {"payload": effect, "after": [before]}
    return steps


def workflows_go_on(stage: Stage) -> None:
    """Workflows are posted twice each, while what runs them and what moves them on is killed, Redis is flushed and PostgreSQL restarts."""
    with ExitStack() as stack:
        stage.system.start("second-maintenance")
        stack.callback(stage.system.stop, "second-maintenance")
        outages: list[tuple[float, float]] = []
        with Poster(stage) as poster:
            stage.hold(2)
            for fault in (
                kill_once("maintenance"),
                die_at(*PLACES),
                kill_once("worker"),
                flush_once,
                kill_once("second-maintenance"),
                database_down(1, immediate=True),
                kill_once("worker"),
            ):
                began = time.time()
                fault(stage)
                outages.append((began, time.time()))
                stage.hold(stage.rng.uniform(1, 2))
            stage.hold(1)
        _judge(stage, poster, outages[-2])


def _judge(stage: Stage, poster: Poster, outage: tuple[float, float]) -> None:
    """Each workflow has ended well, each of its steps had one job, and none began early or late.

    Args:
        outage: when PostgreSQL was away.
    """
    one = lambda query: int(stage.system.rows(query)[0][0])  # noqa: E731
    with suppress(TimeoutError):
        await_that(lambda: one(_LEFT) == 0, OVER_WITHIN * stage.slack, "workflows to end")
    stage.say(f"{poster.done} workflows of {WIDE + LONG + 2} steps")
    if poster.error is not None:
        stage.broken["L19 workflows not posted"] = str(poster.error)
    if wrong := poster.unlike:
        stage.broken["L19 workflows posted twice"] = f"{wrong} answers to the same request differ"
    if left := one(_LEFT):
        stage.broken["L20 workflows left"] = f"{left} workflows have not ended"
        return
    if wrong := one(_ENDED):
        stage.broken["L20 workflows ended otherwise"] = f"{wrong} workflows are not completed"
    without, unasked, early = one(_STEPS), one(_UNASKED), one(_EARLY)
    if without or unasked or early:
        words = f"{without} steps without a job of their own, {unasked} jobs of no step, {early} steps begun early"
        stage.broken["L19 steps and jobs"] = words
    late = [
        released - ended
        for ended, released in stage.system.rows(_WAITED, LATE * stage.slack)
        if not (ended < outage[1] + OUTAGE and released > outage[0])
    ]
    if late:
        stage.broken["L21 late steps"] = f"{len(late)} steps waited up to {max(late):.1f} s for nothing"
