"""The session that each child leads: who is in it, and the end of all that is.

The worker's reaper runs this without anything that is installed, so only Python's own modules are imported here, and of these
few: it is a process beside each worker (pathlib would be a third of it).
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from contextlib import suppress
from typing import NamedTuple

#: What the kernel tells about processes.
PROC = "/proc"


class Process(NamedTuple):
    """One line of the kernel's table of processes."""

    pid: int
    parent: int
    session: int
    has_ended: bool = False


def lead() -> None:
    """Makes this process the leader of a session and of a process group; a leader stays what it is."""
    with suppress(PermissionError):
        os.setsid()


def end_rest(pid: int) -> None:
    """Kills what is in the group and the session of a child that was killed, or has ended."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    for other in process_table():
        if other.session == pid:
            kill_one(other.pid)


def kill_one(pid: int) -> None:
    """Kills a process, if it is there and ours to kill."""
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)


def descendants(pid: int, processes: Iterable[Process]) -> list[int]:
    """The processes below one in a table. Pure.

    Example:
        >>> descendants(2, [Process(2, 1, 2), Process(3, 2, 2), Process(4, 3, 4), Process(5, 1, 5)])
        [3, 4]
    """
    children: dict[int, list[int]] = {}
    for one in processes:
        children.setdefault(one.parent, []).append(one.pid)
    found: list[int] = []
    below = [pid]
    while below:
        of_one = children.pop(below.pop(), [])
        found += of_one
        below += of_one
    return sorted(found)


def process_table() -> list[Process]:
    """Every process that can be seen; none without /proc (macOS), where killing the group must do."""
    try:
        names = os.listdir(PROC)  # noqa: PTH208 - no pathlib here
    except OSError:
        return []
    looked = (process_of(int(name)) for name in names if name.isdigit())
    return [found for found in looked if found is not None]


def process_of(pid: int) -> Process | None:
    """What the kernel tells about a process; None when there is no such."""
    try:
        with open(f"{PROC}/{pid}/stat", "rb") as file:  # noqa: PTH123 - no pathlib here
            stat = file.read()
    except OSError:
        return None
    # The name in brackets may hold anything, so the fields are counted from its end.
    state, parent, _group, session = stat.rpartition(b")")[2].split()[:4]
    return Process(pid, int(parent), int(session), state in (b"Z", b"X"))
