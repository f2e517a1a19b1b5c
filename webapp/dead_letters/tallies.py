"""Runs the statements about tallies of open dead letters, whose cost does not grow with the letters that they count.

Functions take a connection and never commit.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from sqlalchemy import Connection, TextClause, text

from webapp.dead_letters.model import DeadLetterFilter, Group
from webapp.flow.reached import Reached
from webapp.infra.postgres.sql_files import read_sql

#: Held by the transaction that counts; a number of our own, in hexadecimal "djps" and 3.
FOLDING = 0x646A707303
#: How long it is kept what happened to a group, hours.
HOURS_KEPT = 48
#: Hours of a history.
HOURS_SHOWN = 24

_MAY_FOLD, _FOLD, _FORGET_HOURS, _FORGET_GROUPS, _RECOUNT = (
    text(read_sql(__file__, "tallies", name))
    for name in ("may_fold", "fold", "forget_hours", "forget_groups", "recount")
)
_TOTAL, _GROUPS, _HISTORY = (Reached(__file__, "tallies", name) for name in ("total", "groups", "history"))


class Hour(NamedTuple):
    """How many letters were opened and closed in the hour that begins at a moment."""

    at: datetime
    opened: int
    closed: int


def _of(statement: Reached, wanted: DeadLetterFilter) -> TextClause:
    return statement.of(wanted.tenant, of_queues=wanted.queues is not None)


def fold(connection: Connection, limit: int) -> int:
    """Adds the oldest notes to the tallies; returns how many, none where another session does.

    Args:
        limit: most notes.
    """
    if not connection.execute(_MAY_FOLD, {"lock": FOLDING}).scalar_one():
        return 0
    return int(connection.execute(_FOLD, {"limit": limit}).scalar_one())


def forget(connection: Connection) -> int:
    """Deletes hours that are over for long, and groups of which nothing is left; returns how many rows."""
    if not connection.execute(_MAY_FOLD, {"lock": FOLDING}).scalar_one():
        return 0
    hours = connection.execute(_FORGET_HOURS, {"hours": HOURS_KEPT}).rowcount
    return hours + connection.execute(_FORGET_GROUPS).rowcount


def recount(connection: Connection) -> int:
    """Notes by how much tallies are wrong, so that they are right from here on; returns of how many groups: none, as triggers note all.

    It reads all open letters.
    """
    return connection.execute(_RECOUNT).rowcount


def total(connection: Connection, wanted: DeadLetterFilter) -> int:
    """How many open letters match; `wanted` has to be one that tallies can answer."""
    return int(connection.execute(_of(_TOTAL, wanted), wanted.values()).scalar_one())


def groups(connection: Connection, wanted: DeadLetterFilter, *, limit: int) -> list[Group]:
    """Open letters by what they died of, the largest group first; `wanted` has to be one that tallies can answer."""
    rows = connection.execute(_of(_GROUPS, wanted), wanted.values() | {"limit": limit})
    return [Group(*row) for row in rows]


def history(connection: Connection, wanted: DeadLetterFilter) -> list[Hour]:
    """What happened to letters that match, in the hours of the last day that have any."""
    rows = connection.execute(_of(_HISTORY, wanted), wanted.values() | {"hours": HOURS_SHOWN})
    return [Hour(*row) for row in rows]


def each_hour(found: Iterable[Hour], now: datetime) -> list[Hour]:
    """The hours of the last day, those without any letter among them. Pure.

    Example:
        >>> hours = each_hour([], datetime(2026, 11, 28, 14, 30, tzinfo=UTC))
        >>> len(hours), str(hours[0].at), str(hours[-1].at)
        (24, '2026-11-27 15:00:00+00:00', '2026-11-28 14:00:00+00:00')
    """
    by_hour = {one.at: one for one in found}
    last = now.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    hours = (last - timedelta(hours=back) for back in reversed(range(HOURS_SHOWN)))
    return [by_hour.get(hour, Hour(hour, 0, 0)) for hour in hours]
