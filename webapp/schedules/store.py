"""Runs the statements by which schedules fire: what is due, what waits, what became of each time.

Functions take a connection and never commit. Times are PostgreSQL's alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, Row, text

from webapp.infra.postgres.literals import array_of, text_array_of
from webapp.infra.postgres.sql_files import read_sql
from webapp.schedules.model import Firing, Kind, Outcome, Schedule, Spec
from webapp.schedules.zones import rules_version

_LOOK, _TAKE_DUE, _TAKE, _LOOK_AT_WAITING, _OPEN, _OLDEST, _MOVE, _PUT_OFF, _PAUSE, _LAST_JOBS, _OVERDUE, _OLDER = (
    text(read_sql(__file__, "due", name))
    for name in (
        *("look", "take_due", "take", "look_at_waiting", "open_jobs", "oldest_waiting", "move", "put_off"),
        *("pause", "last_jobs", "overdue", "older_rules"),
    )
)  # fmt: skip
_INSERT, _FILL, _SETTLE, _DROP_WAITING, _NEXT_IDS, _PRUNE = (
    text(read_sql(__file__, "firings", name))
    for name in ("insert", "fill", "settle", "drop_waiting", "next_ids", "prune_many")
)
#: What a statement gives of a schedule before its spec.
_COLUMNS = tuple(one.name for one in fields(Schedule) if one.name != "spec")
#: Firings of a schedule that are kept, whatever their age.
FIRINGS_KEPT = 1_000
#: Overdue schedules are counted up to here.
COUNTED_UP_TO = 10_000


class Look(NamedTuple):
    """What there is to do.

    Args:
        due_in: seconds until the first schedule is due; None: none will be.
        is_waiting: a time waits for its turn.
    """

    due_in: float | None
    is_waiting: bool


class Taken(NamedTuple):
    """A schedule that is locked, and when."""

    schedule: Schedule
    now: datetime


class Entry(NamedTuple):
    """What is put on record of a time.

    Args:
        round: as in `FiringRow`.
        job_id: of the job that is stored with it.
    """

    schedule: Schedule
    firing: Firing
    job_id: UUID | None = None
    round: int = 0

    @property
    def key(self) -> tuple[UUID, datetime, int]:
        """Which firing it is."""
        return self.schedule.id, self.firing.at, self.round


class Move(NamedTuple):
    """How a schedule goes on.

    Args:
        last_at, open_job_id: None: as before.
        fired, skipped: how many more.
    """

    id: UUID
    next_at: datetime | None
    due_at: datetime | None
    last_at: datetime | None
    open_job_id: UUID | None
    buffered: int
    fired: int
    skipped: int


def look(connection: Connection) -> Look:
    """What there is to do; one exchange, and two looks at indexes that are empty where there are no schedules."""
    return Look(*connection.execute(_LOOK).one())


def schedule_of(row: Row[Any] | Sequence[Any]) -> Schedule:
    """The schedule of a row."""
    own = dict(zip(_COLUMNS, row[: len(_COLUMNS)], strict=True))
    return Schedule(**own, spec=Spec.of(row[len(_COLUMNS)]))


def take_due(connection: Connection, limit: int) -> list[Taken]:
    """Locks schedules that are due, the longest first."""
    return [Taken(schedule_of(row), row[19]) for row in connection.execute(_TAKE_DUE, {"limit": limit})]


def take_waiting(connection: Connection, ids: Iterable[UUID]) -> list[Taken]:
    """Locks those of these schedules of which a time waits."""
    return [Taken(schedule_of(row), row[19]) for row in connection.execute(_TAKE, {"ids": array_of(ids)})]


def take_older(connection: Connection, limit: int) -> list[Taken]:
    """Locks schedules whose next time was computed by other rules of time zones."""
    values = {"tz_version": rules_version(), "limit": limit}
    return [Taken(schedule_of(row), row[19]) for row in connection.execute(_OLDER, values)]


def look_at_waiting(connection: Connection, after: UUID, limit: int) -> list[tuple[UUID, bool]]:
    """Schedules of which a time waits, the next ones by id; and whether its turn has come, as far as can be seen without a lock."""
    return [
        (row[0], row[1]) for row in connection.execute(_LOOK_AT_WAITING, {"after": after, "limit": limit})
    ]


def open_jobs(connection: Connection, ids: Iterable[UUID | None]) -> set[UUID]:
    """Those of these jobs that have not ended; None is none."""
    named = {one for one in ids if one is not None}
    return set(connection.execute(_OPEN, {"ids": array_of(named)}).scalars()) if named else set()


def oldest_waiting(connection: Connection, ids: Iterable[UUID]) -> dict[UUID, tuple[datetime, int, Kind]]:
    """The oldest time of each schedule that waits, with its round and kind."""
    rows = connection.execute(_OLDEST, {"ids": array_of(ids)})
    return {row[0]: (row[1], row[2], Kind(row[3])) for row in rows}


def record(
    connection: Connection, entries: Sequence[Entry], *, fills: bool = False
) -> set[tuple[UUID, datetime, int]]:
    """Puts what became of times on record; returns those that were not there before.

    Args:
        fills: times that were passed over or refused count as not there.
    """
    if not entries:
        return set()
    values = _values_of(entries) | {
        "kinds": text_array_of(one.firing.kind.value for one in entries),
        "untils": _times(one.firing.until for one in entries),
        "versions": array_of(one.schedule.version for one in entries),
    }
    return {(row[0], row[1], row[2]) for row in connection.execute(_FILL if fills else _INSERT, values)}


def settle(connection: Connection, entries: Sequence[Entry]) -> None:
    """Says of times on record what became of them after all."""
    if entries:
        connection.execute(_SETTLE, _values_of(entries))


def _values_of(entries: Sequence[Entry]) -> dict[str, str]:
    """What became of which times."""
    return {
        "schedule_ids": array_of(one.schedule.id for one in entries),
        "ats": _times(one.firing.at for one in entries),
        "rounds": array_of(one.round for one in entries),
        "outcomes": text_array_of(one.firing.outcome.value for one in entries),
        "reasons": text_array_of(one.firing.reason for one in entries),
        "job_ids": _ids(one.job_id for one in entries),
    }


def drop_waiting(connection: Connection, ids: Sequence[UUID], reason: str) -> None:
    """Passes over what waits of these schedules."""
    if ids:
        connection.execute(_DROP_WAITING, {"ids": array_of(ids), "reason": reason})


def move(connection: Connection, moves: Sequence[Move]) -> None:
    """Moves schedules on that are locked."""
    if not moves:
        return
    values = {
        "ids": array_of(one.id for one in moves),
        "next_ats": _times(one.next_at for one in moves),
        "due_ats": _times(one.due_at for one in moves),
        "last_ats": _times(one.last_at for one in moves),
        "open_job_ids": _ids(one.open_job_id for one in moves),
        **{name: array_of(getattr(one, name) for one in moves) for name in ("buffered", "fired", "skipped")},
        "tz_version": rules_version(),
    }
    connection.execute(_MOVE, values)


def put_off(connection: Connection, schedule_id: UUID, seconds: float) -> None:
    """Has a schedule that cannot be worked on be looked at again later."""
    connection.execute(_PUT_OFF, {"id": schedule_id, "seconds": seconds})


def pause(connection: Connection, schedule_id: UUID, by: str, note: str) -> None:
    """Pauses a schedule that is locked."""
    connection.execute(_PAUSE, {"id": schedule_id, "by": by, "note": note})


def last_jobs(connection: Connection, schedule_id: UUID, since: datetime | None, limit: int) -> list[UUID]:
    """The newest jobs of a schedule.

    Args:
        since: only of firings after it.
    """
    values = {"id": schedule_id, "since": since, "limit": limit}
    return list(connection.execute(_LAST_JOBS, values).scalars())


def overdue(connection: Connection, seconds: float) -> int:
    """How many schedules are due for more than so many seconds."""
    values = {"seconds": seconds, "most": COUNTED_UP_TO}
    return int(connection.execute(_OVERDUE, values).scalar_one())


class Pruned(NamedTuple):
    """One step of pruning.

    Args:
        last: the last schedule that was looked at; None where there was none.
        looked: schedules that were looked at.
        deleted: firings that were deleted.
    """

    last: UUID | None
    looked: int
    deleted: int


def prune(connection: Connection, after: UUID, limit: int, days: int | None) -> Pruned:
    """Deletes what is too much of the firings of the next schedules by id.

    Args:
        limit: so many schedules, and of each so many firings, at most.
        days: age of firings that are deleted; None: none is for its age.
    """
    ids = list(connection.execute(_NEXT_IDS, {"after": after, "limit": limit}).scalars())
    if not ids:
        return Pruned(None, 0, 0)
    values = {"ids": array_of(ids), "kept": FIRINGS_KEPT, "most": limit, "days": days}
    return Pruned(ids[-1], len(ids), int(connection.execute(_PRUNE, values).scalar_one()))


def _times(moments: Iterable[datetime | None]) -> str:
    return text_array_of(None if one is None else one.isoformat() for one in moments)


def _ids(ids: Iterable[UUID | None]) -> str:
    return text_array_of(None if one is None else str(one) for one in ids)


def outcome_counts(entries: Iterable[Entry]) -> dict[Outcome, int]:
    """How many entries there are of each outcome. Pure."""
    found: dict[Outcome, int] = {}
    for one in entries:
        found[one.firing.outcome] = found.get(one.firing.outcome, 0) + 1
    return found
