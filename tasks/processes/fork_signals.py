"""Signals and the processes that a handler forks: each begins with the signals of any program, and none is lost on its way.

A child of the worker has signal handlers that raise, in Python. Its copies must not have them. A pool ends its processes by
SIGTERM, perhaps before they have run at all. One that comes before Python has come to itself after the fork is forgotten; one
that comes while Python runs what modules have registered for after a fork (`os.register_at_fork`: logging, random, DJPS) raises
where nothing can be raised, and Python goes on. The copy then waits for work that never comes, and the job for the copy.

So no signal comes through while a process forks. The kernel keeps those that arrive, and the copy gets them when it has put the
handlers down, so SIGTERM ends it as it ends any process. In the process that forks, a time limit that strikes meanwhile is
raised when the fork is done, where it can be.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

from webapp.infra import patches

#: Packages whose handlers are about the jobs of a worker's child, and of no use to a process that a job forks.
_WORKERS_PACKAGES = frozenset({"billiard", "celery", "tasks"})
_ALL = signal.valid_signals()


def is_the_workers(handler: object) -> bool:
    """True if a signal's handler is one of DJPS, Celery or billiard; False for those of jobs, and where there is none. Pure.

    Example:
        >>> is_the_workers(pass_over), is_the_workers(signal.default_int_handler), is_the_workers(signal.SIG_IGN)
        (True, False, False)
    """
    module = getattr(handler, "__module__", None) if callable(handler) else None
    return isinstance(module, str) and module.partition(".")[0] in _WORKERS_PACKAGES


def pass_over(_number: int, _frame: object) -> None:
    """The handler of Ctrl-C in a child: its worker says when it ends."""


def pass_over_interrupts() -> None:
    """Makes this process pass over SIGINT, and what it starts not: a signal that is ignored is ignored by programs it runs, too.

    Those that are to be ended by SIGINT would never end (`ffmpeg`, `tcpdump`, `subprocess.Popen.send_signal`).
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, pass_over)


def guard_forks() -> None:
    """Makes all that this process, a child of the worker, forks from now on begin with the signals of any program."""
    os.register_at_fork(after_in_child=put_down_handlers)
    patches.put("os:fork", _undisturbed(os.fork))
    patches.put("os:forkpty", _undisturbed(os.forkpty))


def put_down_handlers() -> None:
    """Sets what the worker's handlers handle to what Python begins with; handlers that the job has set stay, as in any program."""
    for number in _ALL:
        if is_the_workers(signal.getsignal(number)):
            default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            signal.signal(number, default)


def _undisturbed(fork: Callable[[], Any]) -> Callable[[], Any]:
    """A function that forks, in whose time no signal comes through; in the copy, not before the handlers were put down."""

    def undisturbed() -> Any:
        # Each of these may raise for a signal that came before it, so what is to be put back is known first.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        try:
            signal.pthread_sigmask(signal.SIG_BLOCK, _ALL)
            return fork()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    return undisturbed
