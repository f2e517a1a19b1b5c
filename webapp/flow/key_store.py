"""Runs the statements about keys of a queue that have limits of their own.

Functions take a connection and never commit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, text

from webapp.flow.limits import QueueLimits, Rate
from webapp.flow.model import KeyFigures, KeyRank, KeyState, KeyTarget, Pause, RankedKeys
from webapp.flow.reach import Reach
from webapp.flow.reached import Reached, reach_values
from webapp.flow.tenant import mark_of
from webapp.infra.postgres.sql_files import read_sql

_FIND, _WIDE, _SET, _FORGET, _APPLY, _NOTE, _COUNTS = (
    text(read_sql(__file__, "keys", name))
    for name in ("find", "wide", "set", "forget", "apply", "note", "counts")
)
_PAGE, _RANKED, _RANKED_OF_TENANT = (
    Reached(__file__, "keys", name) for name in ("page", "ranked", "ranked_of_tenant")
)


def find(connection: Connection, target: KeyTarget) -> KeyState:
    """How a key stands; one that was never changed is like every key of its queue."""
    row = connection.execute(_FIND, target._asdict()).first()
    return _state(row) if row is not None else KeyState(*target)


def page(
    connection: Connection, queue: str, reach: Reach, *, after: str | None, limit: int
) -> list[KeyState]:
    """Keys of a queue that have limits of their own, in their order; those of the caller's tenant.

    Args:
        after: the last key of the page before.
    """
    values = {"queue": queue, "after": after, "limit": limit, "mark": mark_of(reach.home.id)}
    rows = connection.execute(_PAGE.by(reach), values)
    return [_state(row) for row in rows]


def wide(connection: Connection, queue: str) -> tuple[KeyTarget, int] | None:
    """A key of a queue of which several jobs may run at once, and how many; None: there is none."""
    row = connection.execute(_WIDE, {"queue": queue}).first()
    return None if row is None else (KeyTarget(queue, row[0]), row[1])


def ranked(
    connection: Connection, queue: str, order: KeyRank, reach: Reach, *, limit: int, most: int
) -> RankedKeys:
    """The keys of which most waits or runs in a queue; those of the caller's tenant.

    Args:
        order: what comes first.
        limit: most keys.
        most: jobs of each kind that are counted.
    """
    values = {"queue": queue, "by_running": order is KeyRank.RUNNING, "limit": limit, "most": most}
    statement = _RANKED_OF_TENANT if reach.is_guest else _RANKED
    rows = connection.execute(statement.by(reach), values | reach_values(reach)).all()
    found = [KeyFigures(_state(row), row[11], row[12]) for row in rows if row[1] is not None]
    return RankedKeys(found, any(most <= counted for counted in rows[0][13:]))


def put(connection: Connection, wanted: KeyState, *, by: str | None, why: str | None) -> KeyState:
    """Gives a key whose queue was locked these limits; returns how it stands then."""
    values = _values(wanted)
    noted = {"by": by, "why": why} if wanted.pause is not None else {"by": None, "why": None}
    state = _state(connection.execute(_SET, values | noted).one())
    connection.execute(_APPLY, values)
    return state


def forget(connection: Connection, target: KeyTarget) -> KeyState:
    """Makes a key whose queue was locked like every key of it; returns how it stands then."""
    state = KeyState(*target)
    connection.execute(_FORGET, target._asdict())
    connection.execute(_APPLY, _values(state))
    return state


def note_queue(connection: Connection, queue: str, limits: QueueLimits) -> None:
    """Notes whether a queue has limits, after a change of one of its keys.

    Args:
        limits: its own.
    """
    connection.execute(_NOTE, {"queue": queue, "has_limits": limits.hold_jobs})


def counts(connection: Connection, target: KeyTarget, most: int) -> tuple[int, int]:
    """How many jobs of a key wait, and how many processes run its jobs, each counted up to `most`."""
    row = connection.execute(_COUNTS, target._asdict() | {"most": most}).one()
    return row[0], row[1]


def _values(state: KeyState) -> dict[str, Any]:
    rate = state.rate
    return {
        "queue": state.queue,
        "key": state.key,
        "paused": state.pause is not None,
        "concurrency": state.concurrency,
        "weight": state.weight,
        "rate_limit": rate.limit if rate else None,
        "rate_per": rate.per if rate else None,
        "rate_burst": rate.burst if rate else None,
    }


def _state(row: Sequence[Any]) -> KeyState:
    pause = None if row[2] is None else Pause(row[2], row[3], row[4])
    rate = None if row[8] is None else Rate.of(*row[8:11])
    return KeyState(row[0], row[1], pause, row[5], row[6], row[7], rate)
