"""Faults of what is paused: nothing of it starts whatever dies meanwhile, the rest goes on, and it all runs when it is resumed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import requests

from ops.chaos.machine_faults import kill_everything
from ops.chaos.message_faults import worker_held
from ops.chaos.redis_faults import redis_command
from ops.chaos.scenario import PROMISED
from ops.chaos.stage import Broken, Stage
from ops.chaos.system import QUEUE, await_that

#: What is paused, or limited: the queue of the load, and the task of its jobs.
QUEUE_PATH, TASK_PATH = f"queues/{QUEUE}", "tasks/chaos.effect"
#: Longest from the answer to a pause until the last start, and from the answer to a resume until the first one, seconds.
WITHIN = 1.0
#: Longest from a resume until everything quick that waited has ended, seconds, and more for each job: where all lives. A job whose
#: message was forgotten is sent again five seconds after it was sent: later than this, where little waits.
CAUGHT_UP_WITHIN, MORE_FOR_EACH = 3.0, 0.01
#: How long a first start is waited for, seconds.
LONGEST_WAIT = 5.0
#: Messages pile up for this long before the first pause, seconds.
HELD = 0.7
#: Jobs that must wait while something is paused, or nothing was tested.
FEWEST = 20
#: Longest a request about a pause goes on being sent while everything starts, seconds.
PATIENCE = 30.0

_STARTED = """
SELECT count(*), max(extract(epoch FROM started_at))::float8 FROM effects
 WHERE started_at > to_timestamp(%s) AND started_at < to_timestamp(%s)"""
_FIRST = "SELECT min(extract(epoch FROM started_at))::float8 FROM effects WHERE started_at > to_timestamp(%s)"
_QUICK = """
SELECT id::text FROM jobs WHERE status = 'queued' AND task = 'chaos.effect' AND run_at <= now() AND attempt = 0
   AND (payload ->> 'ms')::int < 100 AND payload -> 'fails' IS NULL"""
_LEFT = "SELECT count(*) FROM jobs WHERE id = ANY(%s::uuid[]) AND status IN ('queued', 'processing')"


def _turn(stage: Stage, path: str, verb: str) -> float:
    """Pauses or resumes; returns when that was answered, seconds since 1970.

    Raises:
        Broken: it was not answered.
    """
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        with suppress(requests.RequestException):
            body = {"by": "chaos", "why": "a fault is played"}
            answer = requests.post(f"{stage.system.url}/{path}/{verb}", json=body, timeout=5)
            if answer.ok:
                return time.time()
        stage.hold(0.1)
    raise Broken(f"{verb} of {path} was not answered")


@contextmanager
def _paused(stage: Stage, path: str) -> Iterator[list[str]]:
    """Pauses something for the length of a block, and judges what started meanwhile and first afterwards.

    Gives a list that has the ids of the quick jobs which waited once the block has ended.
    """
    waiting: list[str] = []
    with stage.fault(f"{path} is paused"):
        paused_at = _turn(stage, path, "pause")
        yield waiting
        waiting += [row[0] for row in stage.system.rows(_QUICK)]
        resumes_at = time.time()
        late = paused_at + WITHIN * stage.slack
        started, last = stage.system.rows(_STARTED, late, resumes_at)[0]
        if started:
            stage.broken["S1 started while paused"] = (
                f"{started} jobs of {path} started while it was paused, the last {last - paused_at:.2f} s after the answer"
            )
        if len(waiting) < FEWEST:
            stage.broken["S2 nothing waited"] = f"{len(waiting)} jobs waited for {path}: nothing was tested"
        resumed_at = _turn(stage, path, "resume")
    _judge_first_start(stage, path, resumed_at, len(waiting))


def _judge_first_start(stage: Stage, path: str, resumed_at: float, waiting: int) -> None:
    with suppress(TimeoutError):
        await_that(lambda: stage.system.rows(_FIRST, resumed_at) != [(None,)], LONGEST_WAIT, "a start", 0.05)
    (first,) = stage.system.rows(_FIRST, resumed_at)[0]
    after = None if first is None else first - resumed_at
    stage.say(f"{waiting} jobs waited; seconds from the resume to the first start: {after}")
    if after is None or after > WITHIN * stage.slack:
        stage.broken["S4 first start late"] = (
            f"after the resume of {path} nothing started within {WITHIN:g} s"
        )


def _judge_catching_up(stage: Stage, waiting: list[str], within: float) -> None:
    bar = within * stage.slack
    try:
        await_that(lambda: stage.system.rows(_LEFT, waiting) == [(0,)], bar, "what waited to end", 0.05)
    except TimeoutError:
        (left,) = stage.system.rows(_LEFT, waiting)[0]
        stage.broken["S3 late after the resume"] = (
            f"{left} of {len(waiting)} jobs that waited have not ended {bar:.1f} s after the resume"
        )


def _other_task_runs(stage: Stage) -> None:
    """A job of another task of the queue is not held, also where the dispatcher has to find it behind those that are."""
    body = {"payload": {"task": "noop"}, "delay": 0.5}
    posted = requests.post(f"{stage.system.url}/jobs", json=body, timeout=5).json()
    found = requests.get(f"{stage.system.url}/jobs/{posted['id']}?wait=5", timeout=10).json()
    if found.get("status") != "completed":
        stage.broken["S5 other task waited"] = f"a job of another task is {found.get('status')} after 5 s"


def pause_under_load(stage: Stage) -> None:
    """The queue is paused for a moment, then the queue and the task for longer, while everything dies and Redis is flushed."""
    with ExitStack() as paused:
        # Messages pile up before the pause: they come while it lasts.
        with worker_held(stage, HELD):
            waiting = paused.enter_context(_paused(stage, QUEUE_PATH))
        stage.hold(WITHIN)
    _judge_catching_up(stage, waiting, CAUGHT_UP_WITHIN + MORE_FOR_EACH * len(waiting))
    for path in (QUEUE_PATH, TASK_PATH):
        with _paused(stage, path) as waiting:
            # Those that go on by old rules are seen before they die.
            stage.hold(2 * WITHIN)
            stage.system.kill("worker")
            stage.hold(2)
            redis_command(stage, "FLUSHALL")
            kill_everything(stage.system)
            stage.system.wait_ready()
            stage.hold(2)
            if path == TASK_PATH:
                _other_task_runs(stage)
        # What waited must not be held by the next pause: its recovery is measured from the end of this one.
        _judge_catching_up(stage, waiting, PROMISED)
