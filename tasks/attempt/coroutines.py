"""Runs coroutine functions as handlers: on one event loop of the process, which is kept from job to job.

A time limit is an exception that a signal's handler raises wherever the main thread is. Inside of an event loop that may
be the loop's own code, so here it ends the coroutine as asyncio ends one: by a cancellation.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from types import FrameType
from typing import Any

from billiard.common import terminate_handler_fired
from celery.exceptions import SoftTimeLimitExceeded

from webapp.jobs.handlers import Handler, HandlerFunction

#: Signals by which a time limit comes: Celery's own, and the timer of `tasks.attempt.soft_limit`.
_LIMITS = (signal.SIGUSR1, signal.SIGALRM)
#: How long tasks that a handler has left behind may take to end once they are cancelled, seconds.
LEFTOVER_PATIENCE = 1.0


class _Own(threading.local):
    """The event loop of this thread; a worker's child runs its jobs in the main one."""

    runner: asyncio.Runner | None = None


_own = _Own()
#: Loops of the parent process: a fork shares their files, so a child must neither use nor close them.
_inherited: list[asyncio.Runner] = []


def _forget() -> None:
    if _own.runner is not None:
        _inherited.append(_own.runner)
        _own.runner = None


os.register_at_fork(after_in_child=_forget)


def callable_of(found: Handler) -> HandlerFunction:
    """What runs a job of a handler to its end: its function, or the event loop that runs its coroutine."""
    return partial(_run, found.run) if found.is_coroutine else found.run


def _run(function: Callable[..., Coroutine[Any, Any, Any]], payload: dict[str, Any], context: Any) -> Any:
    """Runs a coroutine function to its end.

    Raises:
        SoftTimeLimitExceeded: it ran past its time limit.
    """
    if _own.runner is None:
        _own.runner = asyncio.Runner()
    runner = _own.runner
    loop = runner.get_loop()
    limit = _Limit(loop)
    try:
        # The variables of this context, log fields among them, not those of the moment when the loop was made.
        with limit:
            return runner.run(limit.watched(function, payload, context), context=copy_context())
    except asyncio.CancelledError as error:
        if limit.struck:
            raise SoftTimeLimitExceeded from error
        raise
    finally:
        # A process that the coroutine forked has forgotten the loop, which is its parent's.
        if _own.runner is runner and not terminate_handler_fired():
            _end_leftovers(runner)


def _end_leftovers(runner: asyncio.Runner) -> None:
    """Cancels what the handler has left behind, so that it does not run on beside the next job."""
    loop = runner.get_loop()
    until = loop.time() + LEFTOVER_PATIENCE
    while left := asyncio.all_tasks(loop):
        if loop.time() > until:
            # They will never get another turn; the next job gets another loop.
            _own.runner = None
            loop.close()
            return
        for task in left:
            task.cancel()
        # A task that leaves the program ends the run; the others are looked after in the next turn.
        with suppress(SystemExit, KeyboardInterrupt):
            runner.run(asyncio.wait(left, timeout=max(until - loop.time(), 0.0)))
        for task in left:
            if task.done() and not task.cancelled():
                # Else asyncio logs an error that no one has asked for; the attempt's own end is on record.
                task.exception()


class _Limit:
    """Turns a time limit that strikes while the loop runs into a cancellation of its coroutine.

    What the signal's own handler decides stays: this asks it first, and acts where it raises.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.struck = False
        self._loop = loop
        self._task: asyncio.Task[Any] | None = None
        self._before: dict[signal.Signals, Any] = {}

    async def watched(
        self, function: Callable[..., Coroutine[Any, Any, Any]], payload: dict[str, Any], context: Any
    ) -> Any:
        """The coroutine, in the task that a limit cancels."""
        self._task = asyncio.current_task()
        return await function(payload, context)

    def __enter__(self) -> None:
        """From here on a limit cancels. Signals reach the main thread only; elsewhere there is no limit."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in _LIMITS:
            before = signal.getsignal(number)
            if callable(before):
                self._before[number] = before
                signal.signal(number, self._strike)

    def __exit__(self, *_: object) -> None:
        """From here on it raises."""
        for number, before in self._before.items():
            signal.signal(number, before)

    def _strike(self, number: int, frame: FrameType | None) -> None:
        try:
            self._before[signal.Signals(number)](number, frame)
        except SoftTimeLimitExceeded:
            if self._task is None:
                # The loop does not run yet.
                raise
            self.struck = True
            running = asyncio.current_task(self._loop)
            if running is not self._task:
                # Wakes the loop as well, which may sleep for long.
                self._loop.call_soon_threadsafe(self._task.cancel)
            if running is not None:
                # A coroutine that computes and never waits is not reached by a cancellation.
                raise
