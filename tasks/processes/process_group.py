"""Ends what a job started together with the process that ran it.

Each child leads a session of its own, so everything that its jobs start (a shell's commands, the processes of a pool) can be
found by that session's number, also after the child's death. The child's parent ends what is left of it: when it kills the
child, and when it finds that a child has ended. A process that left the session and whose own parent has ended is not found.

The children are out of the terminal's foreground, so Ctrl-C reaches the worker alone, and Ctrl-Z is handed on to them.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from billiard import pool as billiard_pool
from billiard.popen_fork import Popen

from webapp.infra import patches, prefork

#: What the kernel tells about processes.
PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Process:
    """One line of the kernel's table of processes."""

    pid: int
    parent: int
    session: int
    has_ended: bool = False


def lead() -> None:
    """Makes this process the leader of a session and of a process group; a leader stays what it is."""
    with suppress(PermissionError):
        os.setsid()


def end(pid: int) -> None:
    """Kills a child and everything that it started.

    Args:
        pid: a child of this process; its caller has made sure of that.
    """
    # Before the child is killed, for its death cuts the link to those that left its session.
    others = _started_by(pid)
    _kill(pid)
    end_rest(pid)
    for other in others:
        _kill(other)


def is_alive(pid: int) -> bool:
    """True if a pid is this process or a child of it that has not ended; a zombie has."""
    return pid == os.getpid() or is_child(pid)


def is_child(pid: int) -> bool:
    """True if a pid is a child of this process that has not ended."""
    if not PROC.is_dir():
        return _answers(pid)
    found = _look(pid)
    return found is not None and found.parent == os.getpid() and not found.has_ended


def end_rest_of_dead(pid: int) -> None:
    """Kills what a child that has died left behind, unless that was done when it was reaped.

    A reaped child's number may be another process's by now.
    """
    found = _look(pid)
    if found is not None and found.parent == os.getpid() and found.has_ended:
        end_rest(pid)


def _answers(pid: int) -> bool:
    """Without /proc (macOS): a process with this pid exists and is ours to signal."""
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


def kill(pids: Iterable[int], patience: float = 5.0) -> None:
    """Kills children, with all that they started, and waits until they are gone.

    Args:
        patience: seconds to wait; a process in an uninterruptible call may take longer.
    """
    pids = list(pids)
    for pid in pids:
        end(pid)
    until = time.monotonic() + patience
    while any(is_child(pid) for pid in pids) and time.monotonic() < until:
        with prefork.let_through():
            time.sleep(0.01)


def end_rest(pid: int) -> None:
    """Kills what is in the group and the session of a child that was killed, or has ended."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    for other in _table():
        if other.session == pid:
            _kill(other.pid)


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)


def _started_by(pid: int) -> list[int]:
    """The processes below this one, whatever session they are in."""
    return descendants(pid, _table())


def descendants(pid: int, table: Iterable[Process]) -> list[int]:
    """The processes below one in a table. Pure.

    Example:
        >>> descendants(2, [Process(2, 1, 2), Process(3, 2, 2), Process(4, 3, 4), Process(5, 1, 5)])
        [3, 4]
    """
    children: dict[int, list[int]] = {}
    for one in table:
        children.setdefault(one.parent, []).append(one.pid)
    found: list[int] = []
    below = [pid]
    while below:
        of_one = children.pop(below.pop(), [])
        found += of_one
        below += of_one
    return sorted(found)


def _table() -> list[Process]:
    """Every process that can be seen; none without /proc (macOS), where killing the group must do."""
    names = os.listdir(PROC) if PROC.is_dir() else ()  # noqa: PTH208 - a Path for each costs more than the rest
    looked = (_look(int(name)) for name in names if name.isdigit())
    return [found for found in looked if found is not None]


def _look(pid: int) -> Process | None:
    """What the kernel tells about a process; None when there is no such."""
    try:
        stat = (PROC / str(pid) / "stat").read_bytes()
    except OSError:
        return None
    # The name in brackets may hold anything, so the fields are counted from its end.
    state, parent, _group, session = stat.rpartition(b")")[2].split()[:4]
    return Process(pid, int(parent), int(session), state in (b"Z", b"X"))


def watch_children(reaped: Callable[[int], object] = lambda _: None) -> None:
    """Makes the pool of this process, the worker's parent, end what its children leave behind.

    Args:
        reaped: is told the pid of each child that has ended, once nothing is left of it.

    billiard kills the group of a child that is past its hard limit, and leaves alone what outlives that, and what is left of
    a child that ended in any other way.
    """
    parent = os.getpid()
    real_poll: Callable[..., int | None] = Popen.poll
    real_end = billiard_pool.TimeoutHandler._trywaitkill  # noqa: SLF001 - there is no hook

    def poll(self: Any, flag: int = os.WNOHANG) -> int | None:
        if self.returncode is not None or os.getpid() != parent or not _has_ended(self.pid, flag):
            return real_poll(self, flag)
        # While it is not reaped, its number names no other process, group or session.
        end_rest(self.pid)
        code = real_poll(self, flag)
        reaped(self.pid)
        return code

    def end_late(self: Any, worker: Any) -> None:
        others = _started_by(worker.pid)
        real_end(self, worker)
        for other in others:
            _kill(other)

    patches.put("billiard.popen_fork:Popen.poll", poll)
    patches.put("billiard.pool:TimeoutHandler._trywaitkill", end_late)


def _has_ended(pid: int, flag: int) -> bool:
    """True if a child has ended and was not reaped; waits for that when the flag says so."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | (flag & os.WNOHANG)) is not None
    except ChildProcessError:
        return False


def stop_together(children: Callable[[], Iterable[int]]) -> None:
    """Hands Ctrl-Z on to the children: a worker that stands still must not have jobs that run on without a lease.

    Args:
        children: the pids of those that lead a group.
    """
    if signal.getsignal(signal.SIGTSTP) is not signal.SIG_DFL:
        return

    def stop(_number: int, _frame: object) -> None:
        for number in (signal.SIGSTOP, signal.SIGCONT):
            for pid in children():
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(pid, number)
            if number is signal.SIGSTOP:
                # This process stands still here, until it is continued.
                os.kill(os.getpid(), signal.SIGSTOP)

    signal.signal(signal.SIGTSTP, stop)
