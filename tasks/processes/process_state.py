"""The state of a child process (working folder, environment, signal handlers, ...), put back after a job that changed it.

A child runs many jobs, one after the other. All of this belongs to the process, so what one handler changes there, all later
jobs would meet, its own retries as well. What the child had before
its first job is kept, and put back after a job that changed it. A look costs about 20 us, which is much for a job of 30: so
there is one after each message, one after each job that took a while, and one after each job of a task that was seen to change
something.

A child that cannot be put back as it was, or that lost files of its own (`tasks.processes.file_descriptors`), is unfit, and replaced.
"""

from __future__ import annotations

# The functions of `signal` make an enum of each answer, at eight times the cost.
import _signal  # type: ignore[import-not-found] # typeshed does not know it
import gc
import locale
import logging
import os
import resource
import signal
import socket
import sys
import threading
import time
import warnings
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

from tasks.processes.file_descriptors import StandardFiles, files

logger = logging.getLogger(__name__)

#: A job that takes longer is followed by a look, seconds: the look is a fiftieth of it.
TOOK_A_WHILE = 0.001

#: Signals whose handlers belong to the process, and to nothing else.
_SIGNALS = tuple(
    sorted({int(one) for one in signal.valid_signals()} - {signal.SIGKILL, signal.SIGSTOP, signal.SIGALRM})
)
_LIMITS = tuple(
    getattr(resource, name)
    for name in ("RLIMIT_AS", "RLIMIT_CPU", "RLIMIT_DATA", "RLIMIT_FSIZE", "RLIMIT_NOFILE", "RLIMIT_NPROC")
    if hasattr(resource, name)
)
_TIMERS = (signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)


class Part(NamedTuple):
    """One part of the state.

    Args:
        name: for people.
        read: gives its state, to be compared.
        put_back: gives it the state that `read` gave before; what it raises makes the child unfit.
        is_alarm: it is `tasks.attempt.soft_limit`'s while that is at work.
    """

    name: str
    read: Callable[[], Any]
    put_back: Callable[[Any], object]
    is_alarm: bool = False


def _folder() -> str | None:
    try:
        return os.getcwd()  # noqa: PTH109 - it is compared as it is, for each job
    except OSError:
        return None


def _put_back_folder(folder: str | None) -> None:
    # A child that was born in a folder that is gone has nowhere to go back to.
    if folder is not None:
        os.chdir(folder)


def _umask() -> int:
    mask = os.umask(0o77)
    os.umask(mask)
    return mask


def _environment() -> dict[bytes, bytes]:
    # Ten times as fast as a look at each name.
    return dict(os.environ._data)  # type: ignore[attr-defined] # noqa: SLF001


def _put_back_environment(before: dict[bytes, bytes]) -> None:
    for name in os.environb.keys() - before.keys():
        del os.environb[name]
    for name, value in before.items():
        if os.environb.get(name) != value:
            os.environb[name] = value
    time.tzset()


def _put_back_handlers(handlers: tuple[Any, ...]) -> None:
    for number, known in zip(_SIGNALS, handlers, strict=True):
        # None is a handler that is not Python's, and nothing that Python could set again.
        if known is not None and _signal.getsignal(number) is not known:
            signal.signal(number, known)


def _put_back_timers(_: object) -> None:
    for which in _TIMERS:
        signal.setitimer(which, 0)


def _put_back_limits(limits: tuple[tuple[int, int], ...]) -> None:
    for which, known in zip(_LIMITS, limits, strict=True):
        resource.setrlimit(which, known)


def _put_back_warning_filters(before: tuple[Any, ...]) -> None:
    warnings.filters[:] = before  # type: ignore[index] # it is a list
    warnings._filters_mutated()  # type: ignore[attr-defined] # noqa: SLF001 - what the functions that change it call


def _logging() -> tuple[Any, ...]:
    root = logging.getLogger()
    return (root.level, root.manager.disable, tuple(root.handlers))


def _put_back_logging(before: tuple[Any, ...]) -> None:
    root = logging.getLogger()
    level, disabled, handlers = before
    root.setLevel(level)
    root.manager.disable = disabled
    root.handlers[:] = handlers


#: In this order: the zone is set by the environment, and who restores a signal's handler must not be struck by it.
PARTS: tuple[Part, ...] = (
    # First: the numbers of the process's files must be its own before a file is opened.
    Part("own files", files.are_intact, lambda _: files.let_go()),
    Part("working folder", _folder, _put_back_folder),
    Part("umask", _umask, os.umask),
    Part("environment", _environment, _put_back_environment),
    Part("time zone", lambda: (time.tzname, time.timezone), lambda _: time.tzset()),
    Part("timers", lambda: any(_signal.getitimer(which)[0] for which in _TIMERS), _put_back_timers),
    Part(
        "alarm",
        lambda: (_signal.getitimer(signal.ITIMER_REAL)[0] > 0, _signal.getsignal(signal.SIGALRM)),
        lambda before: (signal.setitimer(signal.ITIMER_REAL, 0), signal.signal(signal.SIGALRM, before[1])),
        is_alarm=True,
    ),
    Part("signal handlers", lambda: tuple([_signal.getsignal(one) for one in _SIGNALS]), _put_back_handlers),
    Part(
        "blocked signals",
        lambda: _signal.pthread_sigmask(signal.SIG_BLOCK, ()),
        lambda blocked: signal.pthread_sigmask(signal.SIG_SETMASK, blocked),
    ),
    Part("recursion limit", sys.getrecursionlimit, sys.setrecursionlimit),
    Part("socket timeout", socket.getdefaulttimeout, socket.setdefaulttimeout),
    Part(
        "locale",
        lambda: locale.setlocale(locale.LC_ALL),
        lambda before: locale.setlocale(locale.LC_ALL, before),
    ),
    Part("garbage collection", gc.isenabled, lambda on: gc.enable() if on else gc.disable()),
    Part("limits", lambda: tuple([resource.getrlimit(which) for which in _LIMITS]), _put_back_limits),
    Part("warning filters", lambda: tuple(warnings.filters), _put_back_warning_filters),
    Part("logging", _logging, _put_back_logging),
)


class ProcessState:
    """The state that this process had before its first job.

    Args:
        parts: what is looked at.
    """

    def __init__(self, parts: tuple[Part, ...] = PARTS) -> None:
        standard = StandardFiles()
        parts = (*parts, Part("standard files", standard.are_intact, lambda _: standard.put_back()))
        self._before = [(part, part.read()) for part in parts]
        #: Tasks that were seen to change something; an exact answer for each of their jobs is worth its cost.
        self._changing: set[Hashable] = set()
        #: Why this process must be replaced; empty while it need not.
        self.unfit = ""

    def wants_look(self, task: str, seconds: float) -> bool:
        """True if a job of this task that took so long should be followed by a look at once."""
        return seconds > TOOK_A_WHILE or task in self._changing

    def put_back(self, task: str, *, alarm: bool = True) -> list[str]:
        """Puts back what a job of this task has changed; returns the names of the parts.

        Signals reach the main thread alone, so elsewhere nothing is done.

        Args:
            alarm: False while `tasks.attempt.soft_limit` is at work.
        """
        if threading.current_thread() is not threading.main_thread():
            return []
        changed = [
            part.name
            for part, before in self._before
            if (alarm or not part.is_alarm) and not self._same(part, before)
        ]
        if changed and task not in self._changing and not self.unfit:
            self._changing.add(task)
            logger.warning(
                "handler changed its process, which was put back",
                extra={"task": task, "changed": ", ".join(changed)},
            )
        return changed

    def _same(self, part: Part, before: Any) -> bool:
        """True if a part is as it was; if not, it is put back."""
        try:
            if part.read() == before:
                return True
            part.put_back(before)
        except Exception as error:  # noqa: BLE001 - whatever it is, the next job must not run here
            self.give_up(f"{part.name}: {type(error).__name__}")
        return False

    def give_up(self, why: str) -> None:
        """This process is not what jobs expect any more, and is replaced after this message."""
        if not self.unfit:
            logger.error("child is replaced, it is not what it was", extra={"why": why})
        self.unfit = self.unfit or why


_kept: ProcessState | None = None


def keep() -> ProcessState:
    """What this process has now is what its jobs shall find; to be called before the first of them, and outside of any."""
    global _kept  # noqa: PLW0603 - a process has one
    _kept = ProcessState()
    return _kept


def kept() -> ProcessState | None:
    """What this process had before its first job; None outside of a worker's children."""
    return _kept
