"""The jobs of the fault suite: one that leaves a trace of everything it does, and many ways to be poison."""

from __future__ import annotations

import asyncio
import ctypes
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg2
import psycopg2.errors

from webapp.jobs import JobContext, Retry, handler

#: Address space an out-of-memory job gets beyond what its process has, bytes.
MEMORY_LEFT = 64 * 1024**2
#: How long a process that a job has started lives unless it is ended, seconds.
HELPER_LIVES = 120
#: Characters of an error that is far too long.
HUGE = 10_000_000

_connections: dict[int, Any] = {}

_BEGIN = "INSERT INTO effects (job_id, attempt, pid) VALUES (%s, %s, %s) RETURNING id"
# The fence of a careful downstream: the effect of an attempt that was overtaken is refused.
_COMMIT = """
UPDATE effects SET ended_at = clock_timestamp(),
       committed = NOT EXISTS (SELECT 1 FROM effects later WHERE later.job_id = %s AND later.attempt > %s)
 WHERE id = %s"""


def _run(job_id: str, sql: str, *values: object) -> Any:
    """One transaction on a connection of our own, serialized by job as a downstream resource would be."""
    connection = _connections.get(os.getpid())
    if connection is None or connection.closed:
        connection = psycopg2.connect(os.environ["CHAOS_DATABASE"], connect_timeout=2)
        _connections.clear()
        _connections[os.getpid()] = connection
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(hashtext(%s))", (job_id,))
            cursor.execute(sql, values)
            return cursor.fetchone() if cursor.description else None
    except psycopg2.errors.ReadOnlySqlTransaction:
        # The next one may reach a server that takes writes.
        connection.close()
        raise


@contextmanager
def _helper(payload: dict[str, Any]) -> Iterator[None]:
    """A process beside the job, when its payload asks for one; it would outlive the suite's patience with what is left behind."""
    if not payload.get("helper"):
        yield
        return
    process = subprocess.Popen(["sleep", str(HELPER_LIVES)])
    try:
        yield
    finally:
        process.kill()
        process.wait()


@handler("chaos.effect", max_retries=12, timeout=60)
def effect(payload: dict[str, Any], context: JobContext) -> dict[str, Any]:
    """Has one effect, `payload["ms"]` milliseconds after it began; fails the first `payload["fails"]` attempts.

    With `payload["steps"]` it says after each of them how far it is, and stops between two when it was cancelled.
    With `payload["children"]` it submits so many jobs first, each by a name of its own.
    With `payload["exit"]` it has none: it ends its process with this code.
    """
    if "exit" in payload:
        os._exit(payload["exit"])
    job_id = str(context.job_id)
    (number,) = _run(job_id, _BEGIN, job_id, context.attempt, os.getpid())
    for child in range(payload.get("children", 0)):
        context.submit({"task": "noop", "of": job_id, "number": child}, name=str(child), tags=["of-a-job"])
    steps = payload.get("steps", 1)
    with _helper(payload):
        for step in range(steps):
            time.sleep(payload.get("ms", 0) / 1000 / steps)
            if "steps" in payload:
                context.progress(step + 1, steps)
                context.check_cancelled()
    if context.attempt <= payload.get("fails", 0):
        raise RuntimeError("this attempt was asked to fail")
    _run(job_id, _COMMIT, job_id, context.attempt, number)
    return {"attempt": context.attempt, "seq": payload["seq"]}


class NoException(BaseException):
    """An error of the kind that `except Exception` does not catch."""


class Unpicklable(Exception):
    """An error that no pickle takes."""

    def __init__(self) -> None:
        super().__init__("cannot be pickled")
        self.why = lambda: None


def _exhaust_memory() -> None:
    used = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm", encoding="ascii") as statm:  # noqa: PTH123 - one read of a kernel file
        pages = int(statm.read().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY_LEFT, used[1]))
    try:
        kept = []
        while True:
            kept.append(bytearray(8 * 1024**2))
    finally:
        resource.setrlimit(resource.RLIMIT_AS, used)


def _stubborn() -> None:
    while True:
        try:
            time.sleep(60)
        except Exception:  # noqa: BLE001, S112 - it swallows the time limit on purpose
            continue


def _spin() -> None:
    while True:
        pass


def _raise(error: BaseException) -> None:
    raise error


#: Every way there is to end badly.
_POISONS: dict[str, Callable[[], object]] = {
    "segfault": lambda: ctypes.string_at(0),
    "exit": lambda: os._exit(3),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "memory": _exhaust_memory,
    "loop": _spin,
    "stubborn": _stubborn,
    "system-exit": lambda: sys.exit("this handler leaves"),
    "no-exception": lambda: _raise(NoException()),
    "endless-wait": lambda: Retry(after=1e15),
    "coroutine": lambda: asyncio.sleep(0),
    "unpicklable": lambda: _raise(Unpicklable()),
    "huge-error": lambda: _raise(RuntimeError("x" * HUGE)),
}
#: Their names, for the scenario.
WAYS = tuple(_POISONS)


@handler("chaos.poison", max_retries=1, timeout=1)
def poison(payload: dict[str, Any], context: JobContext) -> object:
    """Ends badly, in the way that `payload["how"]` names."""
    return _POISONS[payload["how"]]()
