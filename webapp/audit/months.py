"""The months of the record: each is a partition, made ahead, and dropped as a whole when it is old.

An event whose month has none lies in the default partition, so a missing month keeps no act from being done.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from datetime import UTC, date, datetime, time, timedelta
from functools import partial

from sqlalchemy import Connection, Engine, text

from webapp.audit import seal_store
from webapp.infra.postgres.engine import in_transaction
from webapp.infra.postgres.sql_files import read_sql

#: Months that have a partition, this one included.
AHEAD = 3
#: Longest a change of the catalog waits for its lock, and acts behind it, milliseconds.
LOCK_MS = 200
#: Longest one may take, milliseconds.
STATEMENT_MS = 10_000

#: Where events lie that have no month.
_REST = "audit_events_rest"
_NAME = re.compile(r"audit_events_(\d{4})(\d\d)")
_BOUND, _NAMES, _NEWEST_UNFILED, _MAKE, _RENEW_REST = (
    text(read_sql(__file__, "months", name))
    for name in ("bound", "names", "newest_unfiled", "make", "renew_rest")
)


def name_of(first: date) -> str:
    """The partition of the month that begins on this day.

    Example:
        >>> name_of(date(2026, 11, 1))
        'audit_events_202611'
    """
    return f"audit_events_{first:%Y%m}"


def next_month(day: date) -> date:
    """The first day of the month after a day's.

    Example:
        >>> next_month(date(2026, 12, 31))
        datetime.date(2027, 1, 1)
    """
    return (day.replace(day=1) + timedelta(days=32)).replace(day=1)


def months_to_make(existing: Collection[date], today: date, unfiled: date | None) -> list[date]:
    """The first days of the months that are to be made now. Pure.

    Args:
        existing: those of the months there are.
        unfiled: when the newest event was that lies in no month: its month cannot be made any more.
    """
    wanted, first = [], today.replace(day=1)
    for _ in range(AHEAD):
        if first not in existing and (unfiled is None or first > unfiled):
            wanted.append(first)
        first = next_month(first)
    return wanted


def is_over(first: date, now: datetime, days: int) -> bool:
    """True if all events of a month are older than they are kept. Pure."""
    return _midnight(next_month(first)) <= now - timedelta(days=days)


def keep(engine: Engine, now: datetime, days: int) -> list[str]:
    """Makes the months ahead, and drops what is old and sealed; returns the names of what was dropped.

    Args:
        now: by PostgreSQL's clock.
        days: days that events are kept.

    Raises:
        DBAPIError: a lock could not be had in `LOCK_MS`; the next call goes on.
    """
    with engine.connect() as connection:
        existing = _months(connection)
        unfiled: datetime | None = connection.execute(_NEWEST_UNFILED).scalar()
    newest = unfiled.astimezone(UTC).date() if unfiled is not None else None
    if wanted := months_to_make(existing, now.date(), newest):
        in_transaction(engine, lambda connection: _make(connection, wanted))
    old = [name_of(first) for first in existing if is_over(first, now, days)]
    if unfiled is not None and unfiled <= now - timedelta(days=days):
        old.append(_REST)
    with engine.connect() as connection:
        gone = [name for name in old if not seal_store.has_waiting(connection, name)]
    for name in gone:
        in_transaction(engine, partial(_drop, name=name))
    return gone


def _months(connection: Connection) -> list[date]:
    found = (_NAME.fullmatch(name) for name in connection.execute(_NAMES).scalars())
    return sorted(date(int(one[1]), int(one[2]), 1) for one in found if one is not None)


def _make(connection: Connection, wanted: Collection[date]) -> None:
    _bound(connection)
    for first in wanted:
        values = {"name": name_of(first), "since": _midnight(first), "until": _midnight(next_month(first))}
        connection.execute(_MAKE, values)


def _drop(connection: Connection, name: str) -> None:
    _bound(connection)
    connection.execute(_RENEW_REST if name == _REST else text(f"DROP TABLE IF EXISTS {name}"))


def _bound(connection: Connection) -> None:
    connection.execute(_BOUND, {"lock_ms": LOCK_MS, "statement_ms": STATEMENT_MS})


def _midnight(day: date) -> datetime:
    """When a day begins."""
    return datetime.combine(day, time(), UTC)
