"""History: ended jobs lie apart from those that live, in a partition for each day, which is dropped as a whole when it is old.

A job moves there in the UPDATE that ends it. Days are made ahead; a job that ends on a day that has no partition stays in the
default partition, where jobs live, and is deleted from there when it is old. So a missing day costs speed and never a job.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

from sqlalchemy import Connection, Engine, text

from webapp.infra.postgres.engine import in_transaction
from webapp.infra.postgres.sql_files import read_sql

#: Days that have a partition from today on, after some were made...
AHEAD = timedelta(days=14)
#: ...which is done when there are fewer than these. Each making keeps all statements waiting for a moment, so it makes several.
LEAST_AHEAD = timedelta(days=7)
#: Jobs that are kept longer lie in months: a statement about all of history looks at each partition.
MOST_DAYS = 100
#: Bytes of a default partition that is looked through while others wait: a few milliseconds.
SMALL = 16 * 1024**2
#: Longest a change of the catalog waits for its lock, and everybody else behind it, milliseconds.
LOCK_MS = 200
#: Time before midnight in which nothing is promised of the next day: several times as long as a proof may take.
BEFORE_MIDNIGHT = timedelta(hours=1)
#: Longest a look at each living job may take, milliseconds; no one waits for it.
PROOF_MS = 600_000

_BOUNDS = re.compile(
    r"FOR VALUES FROM \('(\d{4}-\d\d-\d\d) 00:00:00\+00'\) TO \('(\d{4}-\d\d-\d\d) 00:00:00\+00'\)"
)
(
    _BOUND,
    _MOMENT,
    _PERIODS,
    _TAKEN_OFF,
    _LIVING,
    _PROMISE,
    _PROVE,
    _FORGET_PROMISE,
    _MAKE,
    _CLEAR,
) = (
    read_sql(__file__, "history", name)
    for name in (
        "bound",
        "moment",
        "periods",
        "taken_off",
        "living",
        "promise",
        "prove",
        "forget_promise",
        "make",
        "clear",
    )
)


@dataclass(frozen=True, slots=True, order=True)
class Period:
    """The days of one partition, in UTC.

    Args:
        first: its first day.
        end: the day after its last one.
    """

    first: date
    end: date

    @property
    def name(self) -> str:
        """The partition's name.

        Example:
            >>> Period(date(2026, 11, 28), date(2026, 11, 29)).name
            'jobs_20261128'
        """
        return f"jobs_{self.first:%Y%m%d}"


def periods_to_make(
    existing: Sequence[Period], today: date, first: date, retention_days: int
) -> list[Period]:
    """What is to be made now, so that `AHEAD` lies before us; nothing while `LEAST_AHEAD` does. Pure.

    Args:
        existing: the periods there are.
        first: a new period begins on this day or later.
        retention_days: days that jobs are kept; 0: for ever.
    """
    begin = max([first, *(one.end for one in existing)])
    if begin - today > LEAST_AHEAD:
        return []
    monthly = retention_days == 0 or retention_days > MOST_DAYS
    made: list[Period] = []
    while begin <= today + AHEAD:
        end = _next_month(begin) if monthly else begin + timedelta(days=1)
        made.append(Period(begin, end))
        begin = end
    return made


def _next_month(day: date) -> date:
    """The first day of the month after a day's."""
    return (day.replace(day=1) + timedelta(days=32)).replace(day=1)


def first_day(now: datetime, *, needs_proof: bool, has_ended: bool) -> date:
    """The first day that may get a partition now. Pure.

    Args:
        needs_proof: it is promised, and then proved, that the default partition holds no job of that day. A day must not begin
            meanwhile: its jobs would be refused.
        has_ended: a job that ended today lies in the default partition.
    """
    tomorrow = now.date() + timedelta(days=1)
    if not needs_proof:
        return tomorrow if has_ended else now.date()
    return tomorrow if _midnight(tomorrow) - now > BEFORE_MIDNIGHT else tomorrow + timedelta(days=1)


def is_over(period: Period, now: datetime, retention_days: int) -> bool:
    """True if all that ended in a period is older than it is kept. Pure."""
    return retention_days > 0 and _midnight(period.end) <= now - timedelta(days=retention_days)


def days_ahead(existing: Sequence[Period], today: date) -> int:
    """How many days from tomorrow on have a partition, without a gap. Pure."""
    day = today + timedelta(days=1)
    for period in sorted(existing):
        if period.first <= day < period.end:
            day = period.end
    return (day - today).days - 1


def periods(connection: Connection) -> list[Period]:
    """The periods that have a partition, the oldest first."""
    found = (_BOUNDS.fullmatch(bounds) for _, bounds in connection.execute(text(_PERIODS)))
    return sorted(Period(*map(date.fromisoformat, one.groups())) for one in found if one is not None)


def moment(connection: Connection) -> datetime:
    """What time it is by PostgreSQL's clock: a worker whose clock is ahead would drop jobs that are young."""
    now: datetime = connection.execute(text(_MOMENT)).scalar_one()
    return now


def make_ahead(engine: Engine, now: datetime, retention_days: int) -> list[Period]:
    """Makes the partitions of the next days; returns those that were made.

    Today has one only where nothing has ended today and the default partition is small: it is looked through meanwhile.

    Raises:
        DBAPIError: a lock could not be had in `LOCK_MS`; the next call goes on.
    """
    with engine.connect() as connection:
        existing = periods(connection)
        size, has_ended, has_promise = connection.execute(
            text(_LIVING), {"since": _midnight(now.date())}
        ).one()
    if has_promise:
        _change(engine, _FORGET_PROMISE)
    needs_proof = size > SMALL
    first = first_day(now, needs_proof=needs_proof, has_ended=has_ended)
    wanted = periods_to_make(existing, now.date(), first, retention_days)
    if not wanted:
        return []
    if needs_proof:
        _change(engine, _literal(_PROMISE, wanted[0].first, wanted[-1].end))
    try:
        if needs_proof:
            _change(engine, _PROVE, PROOF_MS)
        in_transaction(engine, lambda connection: _make(connection, wanted))
    finally:
        # While it stands, a job that ends on such a day without a partition would be refused.
        if needs_proof:
            _change(engine, _FORGET_PROMISE)
    return wanted


def _make(connection: Connection, wanted: Sequence[Period]) -> None:
    _bounded(connection)
    for period in wanted:
        values = {"name": period.name, "since": _midnight(period.first), "until": _midnight(period.end)}
        connection.execute(text(_MAKE), values)


def take_off(engine: Engine, period: Period) -> str:
    """Takes a partition out of `jobs`: from then on its jobs are gone. Returns the name that its table has now.

    It gets a name that no one else gives a table of theirs, for a table of this name is dropped.

    Raises:
        DBAPIError: the lock could not be had in `LOCK_MS`.
    """
    gone = f"{period.name}_gone"
    _change(
        engine, f"ALTER TABLE jobs DETACH PARTITION {period.name}; ALTER TABLE {period.name} RENAME TO {gone}"
    )
    return gone


def taken_off(connection: Connection) -> list[str]:
    """The tables that were partitions and are to be dropped."""
    return list(connection.execute(text(_TAKEN_OFF)).scalars())


def clear(connection: Connection, table: str, limit: int) -> int:
    """Deletes what else is left of jobs of a table that was taken off: dead letters and attempts; returns of how many jobs.

    A job that completed at its first attempt has neither, and is not looked at.

    Args:
        table: as `taken_off` names it.
        limit: most jobs.
    """
    return int(
        connection.execute(text(_CLEAR.replace("jobs_yyyymmdd", table)), {"limit": limit}).scalar_one()
    )


def drop(engine: Engine, table: str) -> None:
    """Drops a table that was taken off, and nothing is left of its jobs."""
    _change(engine, f"DROP TABLE IF EXISTS {table}")


def _change(engine: Engine, sql: str, statement_ms: int = 10_000) -> None:
    """Runs a statement that changes the catalog, with a short wait for its lock."""

    def run(connection: Connection) -> None:
        _bounded(connection, statement_ms)
        connection.execute(text(sql))

    in_transaction(engine, run)


def _bounded(connection: Connection, statement_ms: int = 10_000) -> None:
    connection.execute(text(_BOUND), {"lock_ms": LOCK_MS, "statement_ms": statement_ms})


def _literal(sql: str, first: date, end: date) -> str:
    """A statement with two days in it: PostgreSQL takes no parameters where it changes the catalog."""
    return sql.replace(":since", f"'{_midnight(first)}'").replace(":until", f"'{_midnight(end)}'")


def _midnight(day: date) -> datetime:
    """When a day begins."""
    return datetime.combine(day, time(), UTC)
