"""Lines of logs: read whole or from the end, each with its process, time and level, and merged by time."""

from __future__ import annotations

import heapq
import itertools
import logging
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from ops.logs.times import stamp

#: How much of a file is read at once from its end, bytes.
BLOCK = 65_536
#: The levels that `--level` knows, the least first.
LEVELS = ("debug", "info", "warning", "error", "critical")

_JSON_LEVEL = re.compile(r'"level": ?"([A-Z]+)"')
_SERVER_LEVEL = re.compile(
    r" (DEBUG|INFO|LOG|WARN|WARNING|ERROR|FATAL|PANIC|CRIT|CRITICAL):? |level=(DEBUG|INFO|WARN|ERROR) |\d (#) "
)
_NUMBERS = {
    **logging.getLevelNamesMapping(),
    "LOG": logging.INFO,
    # Valkey marks what needs a look with a #.
    "#": logging.WARNING,
    "PANIC": logging.CRITICAL,
    "CRIT": logging.CRITICAL,
}
#: What a line is where nothing says how grave it is.
UNKNOWN_LEVEL = logging.INFO
LONG_AGO = datetime.min.replace(tzinfo=UTC)
#: How many lines are kept waiting for the first one that says a time.
MOST_BEFORE_A_TIME = 1_000


@dataclass(frozen=True, slots=True)
class Line:
    """One line of one process.

    Attributes:
        at: when it was written; where the line does not say, when the one before it was.
        level: as a number of `logging`.
        text: as it was written, without its end.
    """

    process: str
    at: datetime
    level: int
    text: str


def level_of(text: str) -> int | None:
    """How grave a line is, as a number of `logging`; None where it does not say."""
    found = (_JSON_LEVEL if text.startswith("{") else _SERVER_LEVEL).search(text[:200])
    return _NUMBERS.get(next(filter(None, found.groups()))) if found else None


def read(process: str, texts: Iterable[str], *, otherwise: datetime = LONG_AGO) -> Iterator[Line]:
    """Gives lines their process, time and level.

    A line without a time, such as a handler's `print`, has time and level of the one before it; what stands before all
    others has the time of the first that says one.

    Args:
        otherwise: the time of lines of which none says one.
    """
    texts = iter(texts)
    first: list[str] = []
    at = None
    for text in itertools.islice(texts, MOST_BEFORE_A_TIME):
        first.append(text)
        if (at := stamp(text)) is not None:
            break
    level = UNKNOWN_LEVEL
    for text in itertools.chain(first, texts):
        if (written := stamp(text)) is not None:
            at, level = written, level_of(text) or UNKNOWN_LEVEL
        yield Line(process, at or otherwise, level, text.rstrip("\n"))


def merged(logs: Iterable[Iterable[Line]]) -> Iterator[Line]:
    """Lines of several logs in the order of time; each log keeps its own order."""
    return heapq.merge(*map(_rising, logs), key=lambda line: line.at)


def _rising(lines: Iterable[Line]) -> Iterator[Line]:
    """Lines of one log whose times never fall, as merging needs it: threads write a little out of order."""
    latest = LONG_AGO
    for line in lines:
        latest = max(latest, line.at)
        yield line if line.at == latest else Line(line.process, latest, line.level, line.text)


def files_of(log: Path) -> list[Path]:
    """A log and what was rotated out of it, the oldest first."""
    rotated = [file for file in log.parent.glob(f"{log.name}.*") if file.suffix[1:].isdecimal()]
    return [*sorted(rotated, key=lambda file: -int(file.suffix[1:])), log]


def texts_of(files: Iterable[Path]) -> Iterator[str]:
    """The lines of files, one after the other; a file that is rotated away meanwhile is left out."""
    for file in files:
        try:
            with file.open(errors="replace", newline="\n") as opened:
                yield from opened
        except FileNotFoundError:
            continue


def last_texts(files: Sequence[Path], count: int) -> list[str]:
    """The last lines of files that follow each other, read from their end: a log may be large.

    Args:
        files: the oldest first.
        count: how many lines at most.
    """
    found: list[str] = []
    for file in reversed(files):
        missing = count - len(found)
        if missing <= 0:
            break
        try:
            with file.open("rb") as opened:
                found = _last_of(opened, missing) + found
        except FileNotFoundError:
            continue
    return found


def _last_of(opened: BinaryIO, count: int) -> list[str]:
    start = opened.seek(0, os.SEEK_END)
    read_so_far = b""
    # One line end more than lines: what stands before it may be half a line.
    while start > 0 and read_so_far.count(b"\n") <= count:
        step = min(BLOCK, start)
        start = opened.seek(start - step)
        read_so_far = opened.read(step) + read_so_far
    lines = read_so_far.decode(errors="replace").split("\n")
    if lines[-1] == "":
        lines.pop()
    return lines[-count:]
