"""The table of running jobs: which job each child runs right now, in memory that the worker and its children share.

Only PostgreSQL knows which jobs a process holds, and only the process knows which of them it runs. A child that dies takes
that with it, unless it has written it down where its death leaves it. So each child has a slot in a table that its parent
made before the fork. Writing to it costs less than a microsecond and no system call.

The table is a file in the worker's data folder, so that the worker that follows a dead one can read it as well. Where the
file cannot be made, it is memory that only this worker and its children see.
"""

from __future__ import annotations

import logging
import mmap
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from uuid import UUID

from webapp.jobs.loss import LastSeen

logger = logging.getLogger(__name__)

#: Slots in a table: children that are alive, and those that died a moment ago.
SLOTS = 1_024
#: A slot: the child's pid, and which of its two records counts.
_HEAD = struct.Struct("=IB")
#: A record: phase, attempt, job, seconds it may take, and when it began on the monotonic clock.
_RECORD = struct.Struct("=Bi16sdd")
#: Where a slot's two records begin, and how long a slot is, bytes.
_RECORDS_AT, _SLOT = (8, 48), 88
#: Where the byte is that says which record counts.
_WHICH = 4


class Phase(IntEnum):
    """How far a child is with a job."""

    #: It runs none.
    NONE = 0
    #: The handler runs.
    RUNNING = 1
    #: The handler is done, and what it came to is being written.
    ENDED = 2


#: As the table has them: looking up an enum's member takes as long as writing it down.
_RUNNING, _ENDED = int(Phase.RUNNING), int(Phase.ENDED)


@dataclass(frozen=True, slots=True)
class Run:
    """What a child was last known to do.

    Args:
        phase: how far it is.
        job_id: the job.
        attempt: which attempt of it.
        timeout: seconds the handler may take.
        began_at: when the handler began, on the monotonic clock of this run of the kernel.
    """

    phase: Phase
    job_id: UUID
    attempt: int
    timeout: float
    began_at: float

    def is_late(self, now: float, grace: float) -> bool:
        """True if the handler runs on although its time, and the grace after it, are over.

        Args:
            now: the monotonic clock, seconds.
            grace: seconds.
        """
        return self.phase is Phase.RUNNING and now > self.began_at + self.timeout + grace


class RunTable:
    """The table; its parent gives out slots, each child writes its own, and its parent reads.

    Args:
        file: where it is kept; None for memory alone.

    Example:
        >>> table = RunTable()
        >>> table.next_slot()
        >>> table.take(pid=17)
        >>> table.begin(UUID(int=1), 1, timeout=30.0, now=1_000.0)
        >>> table.of(17).phase
        <Phase.RUNNING: 1>
    """

    def __init__(self, file: Path | None = None) -> None:
        kept = None if file is None else _file_memory(file)
        self._memory = mmap.mmap(-1, SLOTS * _SLOT) if kept is None else kept
        self._slot = 0
        #: Where this process's slot begins; None in one that has none.
        self._at: int | None = None
        #: Which of its records counts, and where that begins.
        self._which, self._record = 0, 0

    def next_slot(self, is_alive: Callable[[int], bool] = lambda _: False) -> None:
        """Chooses the slot of the child that is forked next: one of no process that lives.

        Args:
            is_alive: says so of a pid.
        """
        for _ in range(SLOTS):
            self._slot = (self._slot + 1) % SLOTS
            pid = self._pid(self._slot)
            if pid == 0 or not is_alive(pid):
                break

    def take(self, pid: int) -> None:
        """Makes the chosen slot this process's own; called in the child."""
        at = self._slot * _SLOT
        self._memory[at : at + _SLOT] = bytes(_SLOT)
        _HEAD.pack_into(self._memory, at, pid, 0)
        self._at, self._which, self._record = at, 0, at + _RECORDS_AT[0]

    def begin(self, job_id: UUID, attempt: int, timeout: float, now: float) -> None:
        """Writes that this process runs a job from now on.

        Args:
            timeout: seconds the handler may take.
            now: the monotonic clock, seconds.
        """
        if self._at is None:
            return
        # Into the record that does not count yet: a process that is killed in the middle of it leaves the other one.
        self._which = which = 1 - self._which
        self._record = record = self._at + _RECORDS_AT[which]
        _RECORD.pack_into(self._memory, record, _RUNNING, attempt, job_id.bytes, timeout, now)
        self._memory[self._at + _WHICH] = which

    def ended(self) -> None:
        """Writes that the handler is done, and what it came to is not settled yet."""
        if self._at is not None:
            self._memory[self._record] = _ENDED

    def clear(self) -> None:
        """Writes that this process runs nothing."""
        if self._at is not None:
            self._memory[self._record] = Phase.NONE

    def of(self, pid: int) -> Run | None:
        """What a child does, or did when it died; None when it runs nothing, or is not known."""
        # The slot that was given out last counts, should a number have been used again.
        for back in range(SLOTS):
            slot = (self._slot - back) % SLOTS
            if self._pid(slot) == pid:
                return self._read(slot)
        return None

    def last_seen(self, holder: str) -> LastSeen:
        """What a child ran when it died.

        Args:
            holder: its name as the holder of a lease; its pid comes last.
        """
        run = self.of(int(holder.rpartition("/")[2]))
        if run is None or run.phase is not Phase.RUNNING:
            return LastSeen()
        return LastSeen(run.job_id, run.attempt)

    def running(self) -> Iterator[tuple[int, Run]]:
        """Every child that was last known to run something, with what; dead ones are among them."""
        for slot in range(SLOTS):
            pid = self._pid(slot)
            run = self._read(slot) if pid else None
            if run is not None:
                yield pid, run

    def _pid(self, slot: int) -> int:
        pid: int = _HEAD.unpack_from(self._memory, slot * _SLOT)[0]
        return pid

    def _read(self, slot: int) -> Run | None:
        at = slot * _SLOT
        record = at + _RECORDS_AT[self._memory[at + _WHICH]]
        phase, attempt, job_id, timeout, began_at = _RECORD.unpack_from(self._memory, record)
        if phase not in (Phase.RUNNING, Phase.ENDED):
            return None
        return Run(Phase(phase), UUID(bytes=job_id), attempt, timeout, began_at)


_current = RunTable()


def current() -> RunTable:
    """The table of this worker; in a process that is no worker, one that no one reads."""
    return _current


def keep_in(file: Path) -> None:
    """Keeps the worker's table in a file; to be called before it has children."""
    global _current  # noqa: PLW0603 - a worker has one
    _current = RunTable(file)


def _file_memory(file: Path) -> mmap.mmap | None:
    """Memory that is a file's; None where the file cannot be made or has no room."""
    try:
        made = os.open(file, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            # A file with holes would end the process that writes into one on a full disk (SIGBUS).
            os.posix_fallocate(made, 0, SLOTS * _SLOT)
            return mmap.mmap(made, SLOTS * _SLOT)
        finally:
            os.close(made)
    except (OSError, AttributeError) as error:
        logger.warning(
            "table of running jobs is not kept in a file", extra={"error_type": type(error).__name__}
        )
        with suppress(OSError):
            file.unlink(missing_ok=True)
        return None


def read(file: Path) -> RunTable | None:
    """The table that a dead worker left; None where there is none that can be read."""
    try:
        with file.open("rb") as opened:
            kept = opened.read(SLOTS * _SLOT)
    except OSError:
        return None
    if len(kept) != SLOTS * _SLOT:
        return None
    table = RunTable()
    table._memory[:] = kept  # noqa: SLF001 - a table of its own kind
    return table
