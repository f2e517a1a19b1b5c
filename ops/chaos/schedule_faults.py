"""Faults of schedules: each nominal time fires once, whatever dies while it fires, and what must not overlap does not."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from http import HTTPStatus
from typing import Any

import requests

from ops.chaos.database_faults import database_down
from ops.chaos.limit_faults import flush_once
from ops.chaos.process_faults import die_at, kill_once
from ops.chaos.stage import Broken, Stage
from ops.chaos.system import await_that

#: Schedules of each second, and those of them whose jobs must not overlap.
SCHEDULES, IN_TURNS = 24, 4
#: Milliseconds that a job of the latter takes: longer than its next time is away.
MS = 1_300
#: What all their jobs are found by.
TAG = "of-a-schedule"
#: Where a process that fires dies: before it stores the jobs, and behind that.
PLACES = ("in-firing", "before-moving")
#: Longest that a request is tried again, and that jobs get to end, seconds.
PATIENCE, DONE_WITHIN = 20.0, 60.0

# Of each schedule: its firings, how many different times and jobs they have, and how many there must be from the first to the last.
_TIMES = """
SELECT s.name, count(*) FILTER (WHERE f.round = 0), count(DISTINCT f.at) FILTER (WHERE f.round = 0),
       count(f.job_id), count(DISTINCT f.job_id), (extract(epoch FROM max(f.at) - min(f.at)))::int + 1
  FROM schedules s JOIN firings f ON f.schedule_id = s.id GROUP BY s.name"""
_WITHOUT = """
SELECT count(*) FROM firings f WHERE f.outcome = 'fired' AND NOT EXISTS (SELECT FROM jobs WHERE jobs.id = f.job_id)"""
_UNASKED = """
SELECT count(*) FROM jobs WHERE tags @> ARRAY[%s] AND NOT EXISTS (SELECT FROM firings f WHERE f.job_id = jobs.id)"""
_LEFT = "SELECT count(*) FROM jobs WHERE tags @> ARRAY[%s] AND status IN ('queued', 'processing')"
# Two jobs of a schedule of which one was stored while the other had not ended.
_TOGETHER = """
SELECT count(*) FROM schedules s JOIN firings a ON a.schedule_id = s.id JOIN firings b ON b.schedule_id = s.id
  JOIN jobs one ON one.id = a.job_id JOIN jobs other ON other.id = b.job_id
 WHERE s.name LIKE 'turns-%%' AND one.id <> other.id AND one.created_at <= other.created_at
   AND (one.finished_at IS NULL OR other.created_at < one.finished_at)"""


def schedules_fire_once(stage: Stage) -> None:
    """Schedules of each second fire while what fires them is killed, Redis is flushed and PostgreSQL restarts; two beats, two workers of maintenance."""
    with ExitStack() as stack:
        for name in ("second-beat", "second-maintenance"):
            stage.system.start(name)
            stack.callback(stage.system.stop, name)
        for number in range(SCHEDULES):
            _put(stage, f"each-{number}", {"overlap": "allow_all", "job": {"payload": {"task": "noop"}}})
        for number in range(IN_TURNS):
            long = {"payload": {"task": "chaos.effect", "ms": MS, "seq": -1 - number}}
            _put(stage, f"turns-{number}", {"overlap": "buffer_one", "job": long})
        stage.hold(2)
        for fault in (
            kill_once("maintenance"),
            die_at(*PLACES),
            flush_once,
            kill_once("second-maintenance"),
            database_down(1, immediate=True),
            kill_once("maintenance"),
        ):
            fault(stage)
            stage.hold(stage.rng.uniform(1.2, 2.2))
        stage.hold(2)
        for name in [row[0] for row in stage.system.rows("SELECT name FROM schedules")]:
            _ask(stage, "POST", f"/schedules/{name}/pause")
        _judge(stage)


def _put(stage: Stage, name: str, more: dict[str, Any]) -> None:
    job = more["job"] | {"tags": [TAG]}
    spec = {"every": 1, "catch_up": "all", "catch_up_limit": 1_000} | more | {"job": job}
    _ask(stage, "PUT", f"/schedules/{name}", spec)


def _ask(stage: Stage, method: str, path: str, body: dict[str, Any] | None = None) -> None:
    """Sends a request until it is taken.

    Raises:
        Broken: it is refused.
    """

    def taken() -> bool:
        with suppress(requests.RequestException):
            answer = requests.request(method, stage.system.url + path, json=body, timeout=10)
            if answer.status_code not in {HTTPStatus.OK, HTTPStatus.CREATED, HTTPStatus.SERVICE_UNAVAILABLE}:
                raise Broken(f"{method} {path} was answered {answer.status_code}: {answer.text[:200]}")
            return answer.status_code != HTTPStatus.SERVICE_UNAVAILABLE
        return False

    stage.await_that(taken, PATIENCE, f"{method} {path}")


def _judge(stage: Stage) -> None:
    """Each time has one firing, each that fired one job, no job is of none; and those in turns never ran beside each other."""
    with suppress(TimeoutError):
        await_that(
            lambda: stage.system.rows(_LEFT, TAG) == [(0,)],
            DONE_WITHIN * stage.slack,
            "jobs of schedules to end",
        )
    times = stage.system.rows(_TIMES)
    stage.say(
        f"{sum(row[1] for row in times)} times of {len(times)} schedules, {sum(row[3] for row in times)} jobs"
    )
    gaps = [row for row in times if row[1] != row[5] or row[1] != row[2]]
    if gaps or len(times) < SCHEDULES + IN_TURNS:
        stage.broken["L13 times lost"] = (
            f"{len(gaps)} schedules have times without a firing, such as {gaps[:1]}"
        )
    doubled = [row for row in times if row[3] != row[4]]
    ((without,),), ((unasked,),) = stage.system.rows(_WITHOUT), stage.system.rows(_UNASKED, TAG)
    if doubled or without or unasked:
        stage.broken["L14 firings and jobs"] = (
            f"{without} firings without a job, {unasked} jobs of no firing, {len(doubled)} schedules with a job twice"
        )
    ((together,),) = stage.system.rows(_TOGETHER)
    if together:
        stage.broken["L15 overlaps"] = f"{together} jobs were stored while the one before had not ended"
    if left := stage.system.rows(_LEFT, TAG)[0][0]:
        stage.broken["L13 jobs left"] = f"{left} jobs of schedules have not ended"
