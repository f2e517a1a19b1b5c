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
from typing import Any

from billiard import pool as billiard_pool
from billiard.popen_fork import Popen

from tasks.processes.session import PROC, descendants, end_rest, kill_one, process_of, process_table
from webapp.infra import patches, prefork


def end(pid: int) -> None:
    """Kills a child and everything that it started.

    Args:
        pid: a child of this process; its caller has made sure of that.
    """
    # Before the child is killed, for its death cuts the link to those that left its session.
    others = _started_by(pid)
    kill_one(pid)
    end_rest(pid)
    for other in others:
        kill_one(other)


def is_alive(pid: int) -> bool:
    """True if a pid is this process or a child of it that has not ended; a zombie has."""
    return pid == os.getpid() or is_child(pid)


def is_child(pid: int) -> bool:
    """True if a pid is a child of this process that has not ended."""
    if not os.path.isdir(PROC):  # noqa: PTH112 - a text, for `session`'s sake
        return _answers(pid)
    found = process_of(pid)
    return found is not None and found.parent == os.getpid() and not found.has_ended


def end_rest_of_dead(pid: int) -> None:
    """Kills what a child that has died left behind, unless that was done when it was reaped.

    A reaped child's number may be another process's by now.
    """
    found = process_of(pid)
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


def _started_by(pid: int) -> list[int]:
    """The processes below this one, whatever session they are in."""
    return descendants(pid, process_table())


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
            kill_one(other)

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
