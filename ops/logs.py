"""`ops logs`: what the processes wrote, whole, oldest first, from the files before the last rotation on."""

from __future__ import annotations

import itertools
import json
import re
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TextIO

from webapp.infra.telemetry.printable import escaped

#: Seconds between two looks for new lines.
LOOK_EVERY = 0.2
#: Lines of each log that `--follow` begins with, where nothing else is said.
BEFORE_FOLLOWING = 40

_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_AGO = re.compile(r"(\d+(?:\.\d+)?)([smhd])")
#: How PostgreSQL, Valkey and gunicorn's like begin a line.
_STAMPS = (
    (re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"), "%Y-%m-%d %H:%M:%S"),
    (re.compile(r"\d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d"), "%d %b %Y %H:%M:%S"),
)


class BadTime(ValueError):
    """A time cannot be read; the message says how one is written."""


def moment(text: str) -> datetime:
    """Reads `--since`: so long ago (30s, 10m, 2h, 1d), or a moment in ISO 8601 (UTC where it says no zone).

    Raises:
        BadTime: it is neither.

    Example:
        >>> moment("2026-11-24T10:00:00+01:00").isoformat()
        '2026-11-24T09:00:00+00:00'
    """
    ago = _AGO.fullmatch(text)
    if ago is not None:
        return datetime.now(UTC) - timedelta(seconds=float(ago[1]) * _UNITS[ago[2]])
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise BadTime(
            f"must be like 30s, 10m, 2h, 1d or 2026-11-24T10:00:00 in UTC (given: {text!r})"
        ) from None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)


def stamp(line: str) -> datetime | None:
    """When a line was written, where it says so: as JSON, or as the servers write."""
    if line.startswith("{"):
        try:
            found = datetime.fromisoformat(json.loads(line)["timestamp"])
            return found if found.tzinfo else found.replace(tzinfo=UTC)
        except (ValueError, KeyError, TypeError):
            return None
    for pattern, form in _STAMPS:
        if (seen := pattern.search(line[:60])) is not None:
            # The servers write the machine's own time.
            return datetime.strptime(seen[0], form).astimezone(UTC)
    return None


def files_of(log: Path) -> list[Path]:
    """A log and what was rotated out of it, the oldest first."""
    rotated = [file for file in log.parent.glob(f"{log.name}.*") if file.suffix[1:].isdecimal()]
    return [*sorted(rotated, key=lambda file: -int(file.suffix[1:])), log]


def lines_of(files: Iterable[Path]) -> Iterator[str]:
    """The lines of files, one after the other; a file that is rotated away meanwhile is left out."""
    for file in files:
        try:
            with file.open(errors="replace") as opened:
                yield from opened
        except FileNotFoundError:
            continue


def since(lines: Iterable[str], earliest: datetime) -> Iterator[str]:
    """Lines from a moment on; one without a time belongs to the line before it."""

    def too_old(line: str) -> bool:
        written = stamp(line)
        return written is None or written < earliest

    return itertools.dropwhile(too_old, lines)


def show(
    logs: Sequence[Path],
    *,
    tail: int | None = None,
    earliest: datetime | None = None,
    follow: bool = False,
    out: TextIO = sys.stdout,
    go_on: Callable[[], bool] = lambda: True,
) -> None:
    """Prints logs, each under its name where there are several.

    Args:
        tail: how many lines at most, of each.
        earliest: leave out what was written before.
        follow: go on with what is written, until interrupted.
        go_on: asked between two looks for new lines.
    """
    head = len(logs) > 1
    if follow and tail is None and earliest is None:
        tail = BEFORE_FOLLOWING
    ends = {log: log.stat().st_size if log.exists() else 0 for log in logs}
    for log in logs:
        lines: Iterable[str] = lines_of(files_of(log))
        if earliest is not None:
            lines = since(lines, earliest)
        if tail is not None:
            lines = deque(lines, maxlen=tail)
        _print(log, lines, out, head=head)
    while follow and go_on():
        for log in logs:
            added, ends[log] = _added(log, ends[log])
            _print(log, added, out, head=head)
        out.flush()
        time.sleep(LOOK_EVERY)


def _print(log: Path, lines: Iterable[str], out: TextIO, *, head: bool) -> None:
    for number, line in enumerate(lines):
        if head and number == 0:
            out.write(f"==> {log.stem} <==\n")
        # A handler may print anything, and the servers quote what they are given.
        out.write("\t".join(map(escaped, line.rstrip("\n").split("\t"))) + "\n")


def _added(log: Path, end: int) -> tuple[list[str], int]:
    """The whole lines that a log has gained, and where they end; a log that was rotated is read from its beginning."""
    try:
        with log.open("rb") as opened:
            if opened.seek(0, 2) < end:
                end = 0
            opened.seek(end)
            found = opened.read()
    except FileNotFoundError:
        return [], 0
    whole = found[: found.rfind(b"\n") + 1]
    return whole.decode(errors="replace").splitlines(keepends=True), end + len(whole)
