"""Keeps a process that a handler forks from going on with the rest of the job.

A handler may use `os.fork`, `multiprocessing` and process pools as any program may. What it forks has a copy of everything: of
the rest of the job's way, of the pipes to the worker's parent, of the connection to PostgreSQL. Two processes that both speak
on those would mix up their answers, and both would settle the job. So a copy never leaves the handler, and lets go of all that.
"""

from __future__ import annotations

import logging
import multiprocessing
import multiprocessing.process
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from billiard.process import current_process
from kombu import pools

from tasks.processes import fork_signals
from tasks.processes.file_descriptors import files, reserve
from tasks.runtime import runtime
from webapp.infra import patches

T = TypeVar("T")

logger = logging.getLogger(__name__)

#: What `multiprocessing` takes for the main process of the program.
_main_process = multiprocessing.current_process()


#: How many forks lie between the first process and this one. Asking the kernel who one is costs ten times as much.
_generation = 0


def _be_born() -> None:
    global _generation  # noqa: PLW0603 - of a process there is one
    _generation += 1


os.register_at_fork(after_in_child=_be_born)


def call(function: Callable[..., T], *args: Any) -> T:
    """Calls a handler; a process that was forked in it ends when it comes out of it, in whatever way."""
    generation = _generation
    try:
        result = function(*args)
    except BaseException as error:
        if _generation != generation:
            _end_copy(error)
        raise
    if _generation != generation:
        os._exit(0)
    return result


def _end_copy(error: BaseException) -> None:
    """Ends a forked copy as Python would end a program that raised this, without what runs at exit."""
    if isinstance(error, SystemExit):
        code = 0 if error.code is None else error.code
        os._exit(code & 0xFF if isinstance(code, int) else 1)
    with suppress(Exception):
        logger.error("a process that the handler forked failed", exc_info=error)
    os._exit(1)


def allow() -> None:
    """Makes this process, a child of the worker, one whose jobs may fork."""
    # Celery's children are daemons to `multiprocessing`, and those must not have children. To the jobs, this process is the
    # main one; what they start ends with it (`tasks.processes.process_group`).
    patches.put("multiprocessing.process:_current_process", _main_process)
    pipes = _pool_pipes()
    files.set_pipes(pipes)
    os.register_at_fork(after_in_child=lambda: _let_go(pipes))
    fork_signals.guard_forks()


def _let_go(pipes: list[int]) -> None:
    """Drops what belongs to the process that this one was forked from; nothing is said on any connection."""
    reserve(pipes)
    # A copy's own copies find the pipes gone, and perhaps files of the handler in their places.
    pipes.clear()
    if runtime.cache_info().currsize:
        runtime().engine.dispose(close=False)
        # What a copy submits is sent by the dispatcher.
        runtime().broker.client.give_up()
    pools.reset()  # type: ignore[no-untyped-call] # kombu ships no types


def _pool_pipes() -> list[int]:
    """This child's ends of the pipes to its parent.

    As long as one process has them open, the parent does not see that the child has died.
    """
    worker = getattr(current_process(), "_target", None)
    queues = [getattr(worker, name, None) for name in ("inq", "outq", "synq")]
    ends = [getattr(queue, side, None) for queue in queues for side in ("_reader", "_writer")]
    pipes = [end.fileno() for end in ends if end is not None and not end.closed]
    return [*pipes, *_sentinel()]


def _sentinel() -> list[int]:
    """The pipe whose end says that this child has ended; billiard keeps its number in the frame that forked."""
    frame = sys._getframe()  # noqa: SLF001 - there is no other way to it
    while (frame := frame.f_back) is not None:  # type: ignore[assignment]
        found: Any = frame.f_locals.get("child_w") if frame.f_code.co_name == "_launch" else None
        if isinstance(found, int):
            return [found]
    return []
