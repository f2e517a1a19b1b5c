"""Shows logs: what they hold, then what is added to them."""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from ops.logs.layout import as_json, as_text
from ops.logs.lines import Line, files_of, last_texts, merged, read, texts_of
from ops.logs.selection import Selection

#: Seconds between two looks for new lines.
LOOK_EVERY = 0.2
#: Lines that are shown at first on a terminal, and before those that `--follow` waits for, where nothing is said.
AT_FIRST = 100

Printer = Callable[[Line], None]


def printer(*, as_objects: bool, out: TextIO) -> Printer:
    """What prints a line: as a JSON object, or for people, in colours where the terminal has them."""
    if as_objects:
        return lambda line: print(as_json(line), file=out)
    from rich.console import Console  # noqa: PLC0415 - only where it prints

    console = Console(file=out, soft_wrap=True, highlight=False, markup=False, emoji=False)
    return lambda line: console.print(as_text(line))


def show(
    logs: Callable[[], Iterable[Path]],
    wanted: Selection,
    *,
    lines: int | None = None,
    follow: bool = False,
    write: Printer | None = None,
    go_on: Callable[[], bool] = lambda: True,
) -> int:
    """Prints the lines of logs in the order of time; returns how many there were before following.

    Args:
        logs: the files, asked again while following: a process may write its first line later.
        lines: how many at most, the last ones.
        follow: go on with what is written, until interrupted.
        write: what prints a line.
        go_on: asked between two looks for new lines.
    """
    write = write or printer(as_objects=True, out=sys.stdout)
    marks = {log: Mark.at_end(log) for log in logs()}
    shown = 0
    for line in found(list(marks), wanted, lines=lines):
        write(line)
        shown += 1
    while follow and go_on():
        for line in merged([_gained(log, marks) for log in logs()]):
            if wanted.takes(line):
                write(line)
        sys.stdout.flush()
        time.sleep(LOOK_EVERY)
    return shown


def found(logs: Iterable[Path], wanted: Selection, *, lines: int | None = None) -> Iterable[Line]:
    """The lines of logs that are wanted, in the order of time.

    Args:
        lines: how many at most, the last ones; without a selection only the ends of the files are read.
    """
    if lines is not None and wanted.is_everything:
        ends = (read(log.stem, last_texts(files_of(log), lines)) for log in logs)
        return deque(merged(ends), maxlen=lines)
    whole = merged(read(log.stem, texts_of(files_of(log))) for log in logs)
    taken: Iterator[Line] = filter(wanted.takes, whole)
    return taken if lines is None else deque(taken, maxlen=lines)


@dataclass(frozen=True, slots=True)
class Mark:
    """How far a log was read: which file that was, by its inode, and how many bytes of it."""

    inode: int = 0
    end: int = 0

    @classmethod
    def at_end(cls, log: Path) -> Mark:
        """Where a log ends now."""
        try:
            found = log.stat()
        except FileNotFoundError:
            return cls()
        return cls(found.st_ino, found.st_size)


def _gained(log: Path, marks: dict[Path, Mark]) -> list[Line]:
    """The whole lines that a log has gained, with the rest of what was rotated out of it meanwhile."""
    mark = marks.get(log, Mark())
    texts: list[str] = []
    for file in (log.with_name(f"{log.name}.1"), log):
        try:
            with file.open("rb") as opened:
                status = os.fstat(opened.fileno())
                if file != log and status.st_ino != mark.inode:
                    continue
                # Another file, or the same one cut off, is read from its beginning.
                known = status.st_ino == mark.inode and status.st_size >= mark.end
                end = opened.seek(mark.end if known else 0)
                gained = opened.read()
        except FileNotFoundError:
            continue
        whole = gained[: gained.rfind(b"\n") + 1]
        texts += whole.decode(errors="replace").split("\n")[:-1]
        if file == log:
            marks[log] = Mark(status.st_ino, end + len(whole))
    return list(read(log.stem, texts, otherwise=datetime.now(UTC)))
