"""Runs the statements about samples: write one, fold them, read a series.

Functions take a connection and never commit.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

from webapp.infra.postgres.literals import json_of
from webapp.infra.postgres.sql_files import read_sql
from webapp.system import figures
from webapp.system.figures import Figures
from webapp.system.tables import HOUR, MINUTE, TAKEN

#: Held by the transaction that folds; a number of our own, in hexadecimal "djps" and 4.
FOLDING = 0x646A707304
#: How long samples stay as they were taken, and those of a minute and of an hour, seconds.
KEPT = {TAKEN: 2 * 3_600, MINUTE: 3 * 86_400, HOUR: 90 * 86_400}
#: What samples of a span are folded to.
INTO = {TAKEN: MINUTE, MINUTE: HOUR}

_SPAN_OF_NOW, _ADD, _LOCKED, _REPLACE, _MAY_FOLD, _TAKE, _FORGET, _COUNTS, _BUCKETS = (
    text(read_sql(__file__, "samples", name))
    for name in ("span_of_now", "add", "locked", "replace", "may_fold", "take", "forget", "counts", "buckets")
)


def add(
    connection: Connection, host: str, given: Figures, *, span: int = TAKEN, at: datetime | None = None
) -> None:
    """Writes a sample, or adds to the one that is there.

    Args:
        at: when its span begins; None: the one of now, by PostgreSQL's clock.
    """
    row: dict[str, Any] = {"span": span, "at": at, "host": host, "figures": json_of(given)}
    if at is None:
        row["at"] = connection.execute(_SPAN_OF_NOW).scalar_one()
    if connection.execute(_ADD, row).first() is None:
        known = connection.execute(_LOCKED, row).scalar_one()
        connection.execute(_REPLACE, row | {"figures": json_of(figures.added(known, given))})


def fold(connection: Connection, limit: int) -> int:
    """Folds the oldest samples, and deletes those that are too old; returns how many rows, none where another session does.

    Args:
        limit: most samples of each span.
    """
    if not connection.execute(_MAY_FOLD, {"lock": FOLDING}).scalar_one():
        return 0
    changed = 0
    for span, into in INTO.items():
        given = {"span": span, "into": into, "kept": KEPT[span], "limit": limit}
        together: dict[tuple[datetime, str], Figures] = {}
        for at, host, found in connection.execute(_TAKE, given):
            together[at, host] = figures.added(together.get((at, host), {}), found)
            changed += 1
        for (at, host), found in together.items():
            add(connection, host, found, span=into, at=at)
    return changed + connection.execute(_FORGET, {"span": HOUR, "kept": KEPT[HOUR]}).rowcount


def counts(
    connection: Connection, name: str, since: datetime, until: datetime, step: int
) -> list[tuple[datetime, float]]:
    """A series of one number: how much it grew in each step that has any, of all hosts.

    Args:
        step: seconds.
    """
    given = {"name": name, "since": since, "until": until, "step": step}
    return [(row[0], float(row[1])) for row in connection.execute(_COUNTS, given)]


def buckets(
    connection: Connection,
    name: str,
    since: datetime,
    until: datetime,
    step: int,
    *,
    task: str | None = None,
    queue: str | None = None,
) -> list[tuple[datetime, list[float]]]:
    """A series with a distribution: how much each bucket grew in each step that has any, of all hosts."""
    given = {"name": name, "since": since, "until": until, "step": step, "task": task, "queue": queue}
    width = len(figures.HISTOGRAMS[name][1]) + 1
    found: dict[datetime, list[float]] = {}
    for at, place, count in connection.execute(_BUCKETS, given):
        if place <= width:
            found.setdefault(at, [0.0] * width)[place - 1] += float(count)
    return list(found.items())
