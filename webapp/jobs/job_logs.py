"""What handlers log, where it is kept: the last lines of each job, over all of its attempts.

Functions take a connection and never commit.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, text

from webapp.infra.postgres.literals import array_of, text_array_of
from webapp.infra.postgres.sql_files import read_sql

#: Most lines that are kept of a job, and most bytes of their texts: the last ones.
MOST_LINES, MOST_BYTES = 200, 64 * 1024
#: A row's number comes before that of a line in it: each row has fewer lines.
_LINES_OF_ROW = 1_000
#: Longest that a write may take, milliseconds: what is slower is lost, and no one waits for it.
WRITE_TIMEOUT_MS = 1_000

_WRITE, _TRIM, _READ, _PRUNE = (
    text(read_sql(__file__, "job_logs", name)) for name in ("write", "trim", "read", "prune")
)


class Line(NamedTuple):
    """A line as it was written.

    Args:
        at: when, ISO 8601 in UTC.
        level: `INFO`, `WARNING`, ...
        text: what it says.
    """

    at: str
    level: str
    text: str

    @property
    def size(self) -> int:
        """Bytes of what it says."""
        return len(self.text.encode())


class Part(NamedTuple):
    """What an attempt has written since its last part.

    Args:
        before: how many lines it had written before these, those included that are lost.
    """

    job_id: UUID
    attempt: int
    before: int
    lines: Sequence[Line]


class KeptLine(NamedTuple):
    """A line as it is read.

    Args:
        id: grows from line to line of a job.
    """

    id: int
    attempt: int
    at: str
    level: str
    text: str


class JobLog(NamedTuple):
    """The lines of a job.

    Args:
        lines: the last ones, in order.
        dropped: how many more the attempts wrote of which lines are kept.
    """

    lines: list[KeptLine]
    dropped: int

    def page(self, after: int | None, limit: int) -> tuple[list[KeptLine], int | None]:
        """Lines after another one, and the last of them where more follow. Pure."""
        rest = [line for line in self.lines if after is None or line.id > after]
        return rest[:limit], rest[limit - 1].id if len(rest) > limit else None


#: Of a job that has none.
NO_LOG = JobLog([], 0)


def write(connection: Connection, parts: Sequence[Part]) -> None:
    """Stores what attempts have written, and tells those who follow their jobs; leaves the last lines of each."""
    connection.execute(text(f"SET LOCAL statement_timeout = {WRITE_TIMEOUT_MS}"))
    ids = array_of(part.job_id for part in parts)
    values = {
        "ids": ids,
        "attempts": array_of(part.attempt for part in parts),
        "befores": array_of(part.before for part in parts),
        "lines": array_of(len(part.lines) for part in parts),
        "sizes": array_of(sum(line.size for line in part.lines) for part in parts),
        "bodies": text_array_of(json.dumps(part.lines) for part in parts),
    }
    connection.execute(_WRITE, values)
    if any(part.before or part.attempt > 1 for part in parts):
        connection.execute(_TRIM, {"ids": ids, "lines": MOST_LINES, "size": MOST_BYTES})


def read(connection: Connection, job_id: UUID) -> JobLog:
    """The lines of a job."""
    return log_of(connection.execute(_READ, {"id": job_id}))


def log_of(rows: Iterable[Any]) -> JobLog:
    """The last lines of rows, which are in their order. Pure.

    Args:
        rows: number, attempt, lines before, how many lines, and these.
    """
    found: list[KeptLine] = []
    written: dict[int, int] = {}
    for number, attempt, before, lines, body in rows:
        written[attempt] = max(written.get(attempt, 0), before + lines)
        found += [KeptLine(number * _LINES_OF_ROW + place, attempt, *line) for place, line in enumerate(body)]
    size, first = 0, len(found)
    while first > max(0, len(found) - MOST_LINES):
        size += len(found[first - 1].text.encode())
        if size > MOST_BYTES:
            break
        first -= 1
    kept = found[first:]
    return JobLog(kept, sum(written.values()) - len(kept))


def prune(connection: Connection, *, days: int, limit: int) -> int:
    """Deletes lines that are older than jobs are kept; returns of how many rows."""
    return connection.execute(_PRUNE, {"days": days, "limit": limit}).rowcount
