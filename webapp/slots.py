"""A small number for each living process, given back by the kernel when the process dies.

prometheus_client keeps one set of files per process. Named by pid, they pile up as workers are recycled;
named by slot, a new process goes on where a dead one stopped, so counters keep their sum and the folder
keeps its size. A slot is held by an fcntl lock: fork does not hand it on, and no kind of death leaves it
taken.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import IO

#: Most processes that can share a folder.
MAX_SLOTS = 4_096


class Slots:
    """Numbers processes that share a folder.

    Example:
        >>> import tempfile
        >>> Slots(Path(tempfile.mkdtemp())).number()
        0
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._pid = -1
        self._number = -1
        self._lock: IO[bytes] | None = None

    def number(self) -> int:
        """This process's slot, taken at the first call after a start or a fork.

        Raises:
            RuntimeError: all slots are taken.
        """
        if self._pid != os.getpid():
            self._number, self._lock = self._take()
            self._pid = os.getpid()
        return self._number

    def _take(self) -> tuple[int, IO[bytes]]:
        self._folder.mkdir(parents=True, exist_ok=True)
        for number in range(MAX_SLOTS):
            lock = (self._folder / f"slot-{number}.lock").open("wb")
            try:
                fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                lock.close()
            else:
                return number, lock
        raise RuntimeError(f"all {MAX_SLOTS} slots in {self._folder} are taken")
