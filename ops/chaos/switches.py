"""Switches that the harness throws inside the processes it starts: places to die at, and mutants.

The product knows nothing of them. The entry modules of this package call `throw()` before they hand the
real program to Celery or gunicorn; what is switched on comes from the environment.
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import re
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from sqlalchemy import text

from ops.chaos import (
    batch_switches,
    flow_switches,
    schedule_switches,
    submission_switches,
    workflow_switches,
)
from webapp.infra.postgres.engine import Statement

#: Names of places where a process kills itself once its file is there.
PLACES = (
    *("before-commit", "after-commit", "before-group", "after-group"),
    *("after-claim", "before-settle", "after-settle"),
    *("in-firing", "before-moving", "in-count", "in-adding"),
)


#: Places that raise while their file says so: every sweep, and dispatch of a queue that comes before all others.
SWEEPS_RAISE, QUEUE_THAT_RAISES = "raise-sweeps", "raise-queue"
#: That queue; no job is in it.
BROKEN_QUEUE = "a-broken-queue"


def die_if_asked(place: str) -> None:
    """Kills this process when the harness has put the place's file down; each file kills one process."""
    marker = Path(os.environ["CHAOS_FOLDER"]) / f"die-{place}"
    try:
        marker.unlink()
    except FileNotFoundError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


def throw() -> None:
    """Throws every switch that the environment names."""
    from ops.chaos import lost_answers, take_mutants

    _places_to_die()
    _places_to_raise()
    lost_answers.install()
    if os.environ.get("CHAOS_VISIBILITY_TIMEOUT"):
        _visibility_timeout(int(os.environ["CHAOS_VISIBILITY_TIMEOUT"]))
    mutant = os.environ.get("CHAOS_MUTANT", "")
    if mutant and mutant not in take_mutants.EDITS:
        MUTANTS[mutant]()


def raise_if_asked(place: str) -> None:
    """Raises while the harness asks for it: the place's file says until when."""
    try:
        until = float((Path(os.environ["CHAOS_FOLDER"]) / place).read_text() or 0)
    except FileNotFoundError:
        return
    if time.time() < until:
        raise RuntimeError(f"asked to raise: {place}")


def sweep_parts() -> list[tuple[ModuleType, str]]:
    """The parts of all sweeps, `run_...` of each module with a plan: one that is added later is among them."""
    from tasks import sweeps

    modules = [
        importlib.import_module(f"{sweeps.__name__}.{found.name}")
        for found in pkgutil.iter_modules(sweeps.__path__)
    ]
    return [
        (module, name)
        for module in modules
        if hasattr(module, "PLAN")
        for name in vars(module)
        if name.startswith("run_")
    ]


def _places_to_raise() -> None:
    from webapp.queues.dispatch import Dispatcher

    def before(owner: Any, name: str, ask: Callable[..., None]) -> None:
        real = getattr(owner, name)

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            ask(*args)
            return real(*args, **kwargs)

        setattr(owner, name, wrapped)

    for module, name in sweep_parts():
        before(module, name, lambda *_: raise_if_asked(SWEEPS_RAISE))
    before(
        Dispatcher,
        "dispatch",
        lambda _, name: raise_if_asked(QUEUE_THAT_RAISES) if name == BROKEN_QUEUE else None,
    )


def _around(owner: Any, name: str, before: str | None = None, after: str | None = None) -> None:
    """Puts places to die around a function."""
    real = getattr(owner, name)

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if before:
            die_if_asked(before)
        result = real(*args, **kwargs)
        if after:
            die_if_asked(after)
        return result

    setattr(owner, name, wrapped)


def _places_to_die() -> None:
    from tasks import chunk
    from tasks.attempt import claims, settle
    from webapp.jobs import insert
    from webapp.jobs.service import Jobs

    _around(insert, "insert_once", after="before-commit")
    _around(insert, "insert_group", before="before-group", after="after-group")
    _around(Jobs, "_store", after="after-commit")
    _around(claims, "claim_all", after="after-claim")
    _around(settle, "settle_completed", before="before-settle", after="after-settle")
    _around(chunk, "settle_many", before="before-settle", after="after-settle")
    schedule_switches.places(die_if_asked)
    batch_switches.places(die_if_asked)
    workflow_switches.places(die_if_asked)


def _visibility_timeout(seconds: int) -> None:
    from webapp.infra.broker.client import celery

    celery.conf.broker_transport_options = celery.conf.broker_transport_options | {
        "visibility_timeout": seconds,
        "unacked_restore_interval": 1,
    }


def _no_fence() -> None:
    """An end that looks at neither state nor attempt."""
    _unfence(r"AND jobs\.finished_at IS NULL AND \(jobs\.status = 'processing'\) IS TRUE.*?\) IS NULL")


def _no_ended_by() -> None:
    """An end that looks at the records of ends, as they were before it waited, and not at the row for one."""
    _unfence(r"AND jobs\.ended_by IS NULL")


def _unfence(condition: str) -> None:
    """Takes a condition out of every form of the statement that ends attempts."""
    from webapp.jobs import ends
    from webapp.queues import tickets

    fence = re.compile(condition, re.DOTALL)
    forms = [(ends, name) for name in ("_END_ATTEMPTS", "_END_ONE", "_COMPLETE_MANY", "_COMPLETE_ONE")]
    for module, name in (*forms, (tickets, "_END_AND_CLAIM")):
        without, found = fence.subn("", getattr(module, name).text)
        if found != 1:
            raise RuntimeError("the fence was not found, so it was not taken out")
        setattr(module, name, Statement(without))


def _early_ack() -> None:
    """The job is acknowledged, to the broker and in its row, before it is run."""
    from tasks import chunk, execution
    from tasks.attempt import run, settle

    execution.execute_job.acks_late = chunk.execute_jobs.acks_late = False
    real = run.run_handler

    def run_handler(parts: Any, claim: Any, limited: Any = None) -> Any:
        settle.settle_completed(parts, claim, json.dumps({"attempt": claim.attempt}))
        return real(parts, claim, limited)

    run.run_handler = run_handler


def _no_redispatch() -> None:
    """What was sent once is never sent again."""
    from webapp.queues import store as queue_store

    queue_store.take_unclaimed = lambda *_args, **_kwargs: []
    queue_store.forget_dispatched = lambda *_args, **_kwargs: 0


def _no_renewal() -> None:
    """Leases are never prolonged, and nothing is stopped because of that."""
    from tasks.presence.leases import Leases

    Leases.renew = lambda *_args: None
    Leases.stop_unrenewed = lambda *_args: None


def _left_alone() -> None:
    """What a child leaves behind is not ended, and nothing is ended with it."""
    from tasks.processes import process_group

    process_group.end_rest = lambda _pid: None
    process_group._started_by = lambda _pid: []


def _twice() -> None:
    """A second process runs each job at the same time."""
    from tasks.attempt import run

    real = run.run_handler

    def run_handler(parts: Any, claim: Any, limited: Any = None) -> Any:
        pid = os.fork()
        if pid == 0:
            try:
                real(parts, claim, limited)
            finally:
                os._exit(0)
        try:
            return real(parts, claim, limited)
        finally:
            os.waitpid(pid, 0)

    run.run_handler = run_handler


def _any_claim() -> None:
    """A claim that takes a job whatever its state."""
    from webapp.jobs import store

    guard = "AND (status = 'queued') IS TRUE AND run_at <= now()"
    if guard not in store._CLAIM.text:
        raise RuntimeError("the claim's guard was not found, so it was not taken out")
    store._CLAIM = Statement(store._CLAIM.text.replace(guard, ""))


def _cancel_in_words() -> None:
    """A waiting job's cancel is answered, and nothing is written."""
    from webapp.jobs import control

    real = control.ask_cancel

    def ask(connection: Any, job_id: Any, *more: Any) -> Any:
        row = connection.execute(text("SELECT status FROM jobs WHERE id = :id"), {"id": job_id}).scalar()
        if row == "queued":
            return control.CancelAnswer.CANCELLED
        return real(connection, job_id, *more)

    control.ask_cancel = ask


def _off_record() -> None:
    """Acts are done, and no line tells of them."""
    from webapp.audit import store

    store.add = lambda *_args, **_more: None


def _record_apart() -> None:
    """An act's line is committed by itself, before the act is."""
    from webapp.audit import store

    real = store.add

    def add(connection: Any, *act: Any, **more: Any) -> None:
        with connection.engine.begin() as another:
            real(another, *act, **more)

    store.add = add


def _blame_all() -> None:
    """Every job that a dead process held is taken for the one that it ran."""
    from tasks.presence import lost_jobs
    from webapp.jobs.loss import Fate

    lost_jobs.fates = lambda held, _seen: [Fate.LOST for _ in held]


def _limit_all() -> None:
    """A job's time limit goes on when its handler is done."""
    from tasks.processes.run_table import Run

    Run.is_late = lambda self, now, grace: now > self.began_at + self.timeout + grace


def _untold() -> None:
    """No one who waits is woken: neither by a notification nor by the looks that make up for a lost one."""
    from webapp.jobs.watchers import Watchers

    Watchers._wake = lambda *_args: None


def _led_astray() -> None:
    """Connections that were led to a read-only server are kept."""
    from webapp.infra.postgres import engine

    engine._leads_elsewhere = lambda *_args: False
    engine._replace_all = lambda _engine: None


def _one_look() -> None:
    """What met a row on its way to another partition is not done again."""
    from webapp.infra.postgres import engine

    engine.met_a_moved_row = lambda _error: False


def _trusting() -> None:
    """Keys of a wrong type are left where they are."""
    from webapp.infra.broker import redis_keys

    redis_keys.remove_wrong = lambda *_args: []


def _unguarded() -> None:
    """Of the parts of a sweep, one that raises stops those after it."""
    from tasks.sweeps import base

    base.Each.do = lambda _self, _name, work: work()


def _deaf() -> None:
    """No mutant of safety: the worker stops asking for messages once the harness says so."""
    from kombu.transport import redis

    real = redis.Channel._brpop_start
    marker = Path(os.environ["CHAOS_FOLDER"]) / "be-deaf"
    deaf = threading.Event()

    def start(self: Any, *args: Any, **kwargs: Any) -> Any:
        if deaf.is_set() or marker.exists():
            # The file is for the worker that is there now, and not for the one after it.
            marker.unlink(missing_ok=True)
            deaf.set()
            return None
        return real(self, *args, **kwargs)

    redis.Channel._brpop_start = start


def _all_the_time() -> None:
    """A client may take as long as it likes to send its request and to read its answer."""
    from webapp.server import limits

    limits.HEAD_SECONDS = limits.STALL_SECONDS = limits.ROOM_SECONDS = 3_600.0
    limits.body_seconds = limits.answer_seconds = lambda _size: 3_600.0


#: By name; those of submissions and of flow control are in files of their own.
MUTANTS: dict[str, Callable[[], None]] = {
    **submission_switches.MUTANTS,
    **flow_switches.MUTANTS,
    **schedule_switches.MUTANTS,
    **batch_switches.MUTANTS,
    **workflow_switches.MUTANTS,
    "no-fence": _no_fence,
    "no-ended-by": _no_ended_by,
    "one-look": _one_look,
    "early-ack": _early_ack,
    "no-redispatch": _no_redispatch,
    "no-renewal": _no_renewal,
    "twice": _twice,
    "left-alone": _left_alone,
    "any-claim": _any_claim,
    "cancel-in-words": _cancel_in_words,
    "off-record": _off_record,
    "record-apart": _record_apart,
    "blame-all": _blame_all,
    "limit-all": _limit_all,
    "untold": _untold,
    "led-astray": _led_astray,
    "all-the-time": _all_the_time,
    "trusting": _trusting,
    "unguarded": _unguarded,
    "deaf": _deaf,
}
