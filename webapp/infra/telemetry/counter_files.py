"""The files that prometheus_client keeps counters in, made to survive a full disk.

The library maps a sparse file. The first write to a page for which the disk has no room then ends the process with
SIGBUS. Here the room is taken before a page is touched; where there is none, the process counts in memory, and writes
down what it has counted as soon as there is.
"""

from __future__ import annotations

import mmap
import os
import struct
import sys
import time
from pathlib import Path
from typing import Any

from prometheus_client import mmap_dict

#: Seconds between two tries to write down what is counted in memory.
TRY_EVERY = 2.0
#: What reading a file raises that was cut short or overwritten.
UNREADABLE = (struct.error, RuntimeError, ValueError, KeyError, IndexError)

#: Elsewhere the library's way must do.
_ON_LINUX = sys.platform == "linux"
#: Bytes before the first counter.
_HEAD = 8
_SMALLEST: int = mmap_dict._INITIAL_MMAP_SIZE


class CounterFile(mmap_dict.MmapedDict):
    """One process's counters of a kind, in a file that others can read, or in memory for as long as the disk is full."""

    #: Those that this process has open.
    opened: set[CounterFile] = set()  # noqa: RUF012 - one set for the process

    def __init__(self, filename: str, read_mode: bool = False) -> None:  # noqa: FBT001, FBT002 - the library's
        self.path = Path(filename)
        self.in_memory = False
        self._f: Any = None
        try:
            _reserve(self.path)
            self._open(filename)
        except OSError:
            if not _ON_LINUX:
                raise
            self._count_in_memory(_content(self.path))
        except UNREADABLE:
            self._count_in_memory(b"")
        self.opened.add(self)

    def _init_value(self, key: str) -> None:
        """Makes room for one more counter."""
        if not self.in_memory and self._used + len(key.encode()) + 64 > self._capacity:
            try:
                _reserve(self.path, 2 * self._capacity)
            except OSError:
                self._count_in_memory(self._m[:])
        super()._init_value(key)  # type: ignore[no-untyped-call]

    def _open(self, filename: str) -> None:
        super().__init__(filename)  # type: ignore[no-untyped-call]
        if not _HEAD <= self._used <= self._capacity:
            raise ValueError("the file was overwritten")

    def _count_in_memory(self, content: bytes) -> None:
        if self._f is not None:
            self._f.close()
        fd = os.memfd_create("djps-counters")
        try:
            os.write(fd, content)
            try:
                self._open(f"/proc/self/fd/{fd}")
            except UNREADABLE:
                self._f.close()
                os.truncate(fd, 0)
                self._open(f"/proc/self/fd/{fd}")
        finally:
            os.close(fd)
        self.in_memory = True
        self._try_at = time.monotonic() + TRY_EVERY
        # Only a process in this state pays for looking at the clock.
        self.write_value = self._write_and_try  # type: ignore[method-assign]

    def _write_and_try(self, key: str, value: float, timestamp: float) -> None:
        super().write_value(key, value, timestamp)  # type: ignore[no-untyped-call]
        if time.monotonic() >= self._try_at:
            self._try_at = time.monotonic() + TRY_EVERY
            try:
                self._write_down()
            except OSError:
                return

    def _write_down(self) -> None:
        """Goes back to the file: what was counted in memory began with what the file had."""
        _reserve(self.path, self._capacity)
        file = self.path.open("r+b")
        try:
            mapped = mmap.mmap(file.fileno(), self._capacity)
        except (OSError, ValueError):
            file.close()
            raise
        mapped[:] = self._m[:]
        self._m.close()
        self._f.close()
        self._f, self._m, self.in_memory = file, mapped, False
        del self.write_value

    def close(self) -> None:
        """Closes the file."""
        self.opened.discard(self)
        super().close()  # type: ignore[no-untyped-call]


def _reserve(path: Path, size: int = _SMALLEST) -> None:
    """Gives a file so many bytes of the disk, or as many as it has.

    Raises:
        OSError: there is no room for them.
    """
    if not _ON_LINUX:
        return
    with path.open("a+b") as file:
        os.posix_fallocate(file.fileno(), 0, max(size, os.fstat(file.fileno()).st_size))


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def readable(files: list[str]) -> list[str]:
    """Those files that can be read to their end: an empty one is being made, another was cut short by a power cut."""
    return [file for file in files if _is_readable(file)]


def _is_readable(file: str) -> bool:
    values: Any = mmap_dict.MmapedDict.read_all_values_from_file
    try:
        for _ in values(file):
            pass
    except (OSError, *UNREADABLE):
        return False
    return True
