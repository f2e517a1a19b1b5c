"""Runs the statements about schedules for those who ask: by name, in pages, with versions and firings; and those that change them.

Functions take a connection and never commit. What is out of reach is not there.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, text

from webapp.flow.reach import Reach
from webapp.infra.postgres.sql_files import read_sql
from webapp.schedules.model import VERSIONS_KEPT, FiringRow, Outcome, Spec, State, Version
from webapp.schedules.store import Taken, schedule_of
from webapp.schedules.zones import rules_version

_FIND, _PAGE = (text(read_sql(__file__, "schedules", name, without=["reach"])) for name in ("find", "page"))
#: For those who do not reach all queues.
_FIND_WITHIN, _PAGE_WITHIN = (text(read_sql(__file__, "schedules", name)) for name in ("find", "page"))
_LOCK, _MAKE, _CHANGE, _ADD_VERSION, _DROP_VERSIONS, _VERSIONS, _DELETE, _PAUSE, _RESUME, _MOMENT = (
    text(read_sql(__file__, "schedules", name))
    for name in (
        *("lock", "make", "change", "add_version", "drop_versions", "versions", "delete", "pause"),
        *("resume", "moment"),
    )
)
_FIRINGS, _FIRED_AT = (text(read_sql(__file__, "firings", name)) for name in ("page", "fired_at"))


class Times(NamedTuple):
    """The next time of a schedule, and the same with its jitter."""

    next_at: datetime | None
    due_at: datetime | None


def moment(connection: Connection) -> datetime:
    """PostgreSQL's clock."""
    now: datetime = connection.execute(_MOMENT).scalar_one()
    return now


def find(connection: Connection, name: str, reach: Reach) -> Taken | None:
    """A schedule, and when it was looked at; None where there is none within reach."""
    if reach.queues is None:
        row = connection.execute(_FIND, {"name": name}).first()
    else:
        row = connection.execute(_FIND_WITHIN, {"name": name, "queues": list(reach.queues)}).first()
    return None if row is None else Taken(schedule_of(row), row[-1])


def lock(connection: Connection, name: str) -> bool:
    """Keeps others from changing and firing a schedule until the transaction ends; False where there is none."""
    return connection.execute(_LOCK, {"name": name}).first() is not None


def page(connection: Connection, reach: Reach, *, state: State | None, after: str, limit: int) -> list[Taken]:
    """Schedules by name.

    Args:
        state: only those that stand so.
        after: only those behind this name.
    """
    values: dict[str, Any] = {"state": state and state.value, "after": after, "limit": limit}
    if reach.queues is None:
        rows = connection.execute(_PAGE, values)
    else:
        rows = connection.execute(_PAGE_WITHIN, values | {"queues": list(reach.queues)})
    return [Taken(schedule_of(row), row[-1]) for row in rows]


def make(connection: Connection, schedule_id: UUID, name: str, queue: str, times: Times) -> bool:
    """Makes a schedule without a version; False where there is one of this name."""
    values = {"id": schedule_id, "name": name, "queue": queue, "tz_version": rules_version()}
    return connection.execute(_MAKE, values | times._asdict()).first() is not None


def change(connection: Connection, schedule_id: UUID, queue: str, version: int, times: Times) -> None:
    """Has a schedule that is locked be of another version from now on."""
    values = {"id": schedule_id, "queue": queue, "version": version, "tz_version": rules_version()}
    connection.execute(_CHANGE, values | times._asdict())


def add_version(
    connection: Connection, schedule_id: UUID, version: int, spec: Spec, *, by: str | None, why: str | None
) -> None:
    """Keeps a version, and forgets those that are too old."""
    text_of_spec = json.dumps(spec.document(), ensure_ascii=False)
    values = {"id": schedule_id, "version": version, "spec": text_of_spec, "by": by, "why": why}
    connection.execute(_ADD_VERSION, values)
    if version > VERSIONS_KEPT:
        connection.execute(_DROP_VERSIONS, {"id": schedule_id, "until": version - VERSIONS_KEPT})


def versions(connection: Connection, schedule_id: UUID, limit: int = VERSIONS_KEPT) -> list[Version]:
    """The versions of a schedule, the newest first."""
    return [Version(*row) for row in connection.execute(_VERSIONS, {"id": schedule_id, "limit": limit})]


def delete(connection: Connection, schedule_id: UUID) -> None:
    """Deletes a schedule with its versions and firings."""
    connection.execute(_DELETE, {"id": schedule_id})


def pause(connection: Connection, schedule_id: UUID, by: str | None, note: str | None) -> None:
    """Pauses a schedule that is locked."""
    connection.execute(_PAUSE, {"id": schedule_id, "by": by, "note": note})


def resume(connection: Connection, schedule_id: UUID, times: Times, last_at: datetime | None) -> None:
    """Resumes a schedule that is locked.

    Args:
        last_at: the newest time that came while it was paused; None: none did.
    """
    values = {"id": schedule_id, "last_at": last_at, "tz_version": rules_version()}
    connection.execute(_RESUME, values | times._asdict())


def firings(
    connection: Connection,
    schedule_id: UUID,
    *,
    outcome: Outcome | None,
    before: tuple[datetime, int] | None,
    limit: int,
) -> list[FiringRow]:
    """What became of times, the newest first.

    Args:
        outcome: only of those.
        before: only those before this time and round.
    """
    values = {
        "id": schedule_id,
        "outcome": outcome and outcome.value,
        "before_at": before and before[0],
        "before_round": before and before[1],
        "limit": limit,
    }
    return [FiringRow(*row) for row in connection.execute(_FIRINGS, values)]


def fired_among(
    connection: Connection, schedule_id: UUID, times: Sequence[datetime]
) -> dict[datetime, tuple[int, bool]]:
    """Which of these times are on record: the last round of each, and whether it has fired or waits."""
    if not times:
        return {}
    rows = connection.execute(_FIRED_AT, {"id": schedule_id, "ats": list(times)})
    return {row[0]: (row[1], row[2]) for row in rows if row[1] is not None}
