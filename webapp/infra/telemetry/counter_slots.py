"""A small number for each living process, given back by the kernel when the process dies.

prometheus_client keeps one set of files per process. Named by pid, they pile up as workers are recycled;
named by slot, a new process goes on where a dead one stopped, so counters keep their sum and the folder
keeps its size. A slot is held by an fcntl lock: fork does not hand it on, and no kind of death leaves it
taken.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO

#: Most processes that can share a folder.
MAX_SLOTS = 4_096
#: Seconds between two looks whether the folder is still there.
LOOK_EVERY = 2.0


class Slots:
    """Numbers processes that share a folder.

    Args:
        folder: where the locks are; made when it is missing.
        files: what this process has open in the folder; a file of these that was deleted is noticed as the lock is.

    Example:
        >>> import tempfile
        >>> Slots(Path(tempfile.mkdtemp())).number()
        0
    """

    def __init__(self, folder: Path, files: Callable[[], Iterable[Path]] = tuple) -> None:
        self._folder = folder
        self._files = files
        self._pid = -1
        self._number = -1
        self._lock: IO[bytes] | None = None
        self._look_at = 0.0

    def number(self) -> int:
        """This process's slot, taken at the first call after a start or a fork, and anew when the folder was deleted.

        Where no lock can be made, on a full disk or without rights, it is a number beyond all slots, made of the pid.

        Raises:
            RuntimeError: all slots are taken.
        """
        if self._pid != os.getpid():
            self._number, self._lock = self._take()
            self._pid = os.getpid()
        elif time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + LOOK_EVERY
            if self._lock is not None and self._is_gone(self._lock):
                # Another number, since that is how the counters learn that their files are others now.
                old = self._lock
                self._number, self._lock = self._take(but=self._number)
                old.close()
        return self._number

    def _is_gone(self, lock: IO[bytes]) -> bool:
        try:
            same = os.path.samestat(os.fstat(lock.fileno()), Path(lock.name).stat())
        except OSError:
            return True
        return not same or not all(file.exists() for file in self._files())

    def _take(self, but: int = -1) -> tuple[int, IO[bytes] | None]:
        for number in range(MAX_SLOTS):
            if number == but:
                continue
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
                lock = (self._folder / f"slot-{number}.lock").open("wb")
            except OSError:
                return MAX_SLOTS + os.getpid(), None
            try:
                fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                lock.close()
            else:
                return number, lock
        raise RuntimeError(f"all {MAX_SLOTS} slots in {self._folder} are taken")
