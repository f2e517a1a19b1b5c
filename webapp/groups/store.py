"""Runs the statements that batches and workflows share: what members have come to.

Functions take a connection and never commit: their callers own the transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import Connection, text

from webapp.groups.model import Totals
from webapp.infra.postgres.literals import array_of
from webapp.infra.postgres.sql_files import read_sql

#: Held by the transaction that counts; a number of our own, in hexadecimal "djps" and 1.
COUNTING = 0x646A707301

_MAY_COUNT, _NOTED, _DROP_ORPHANS, _TOTALS = (
    text(read_sql(__file__, "ends", name)) for name in ("may_count", "noted", "drop_orphans", "totals")
)
_OLDEST = text(read_sql(__file__, "ends", "oldest"))
_COUNT = text(read_sql(__file__, "ends", "count", without=["one"]))
_COUNT_ONE = text(read_sql(__file__, "ends", "count"))


class Counted(NamedTuple):
    """What was counted.

    Args:
        groups: those whose counters changed; their rows are locked until the transaction ends.
        notes: how many notes there were.
    """

    groups: Sequence[UUID]
    notes: int


def may_count(connection: Connection) -> bool:
    """True if no other session counts; none will until the transaction ends."""
    return bool(connection.execute(_MAY_COUNT, {"lock": COUNTING}).scalar_one())


def count_ends(connection: Connection, limit: int, only: UUID | None = None) -> Counted:
    """Adds the oldest notes to the counters of their batches. To be called where `may_count` has said yes.

    Args:
        limit: most notes.
        only: the batch whose notes are counted; None: all.

    Raises:
        IntegrityError: a batch would have more ends than members; nothing is counted.
    """
    statement = _COUNT if only is None else _COUNT_ONE
    rows = connection.execute(statement, {"limit": limit, "group": only}).all()
    return Counted([row[0] for row in rows if row[2]], sum(row[1] for row in rows))


def noted(connection: Connection, limit: int) -> list[UUID]:
    """Batches that have notes.

    Args:
        limit: how many notes are looked at, the oldest first.
    """
    return list(connection.execute(_NOTED, {"limit": limit}).scalars())


def drop_orphans(connection: Connection, limit: int) -> int:
    """Deletes notes of groups that are gone; returns how many."""
    return connection.execute(_DROP_ORPHANS, {"limit": limit}).rowcount


def totals(connection: Connection, ids: Sequence[UUID]) -> dict[UUID, Totals]:
    """What the members of batches have come to, exact at the moment of the statement; groups that are not there are left out."""
    rows = connection.execute(_TOTALS, {"ids": array_of(ids)})
    return {row[0]: Totals(*row[1:]) for row in rows}


def oldest_note(connection: Connection) -> float:
    """Seconds that the oldest note has waited to be counted; 0 where there is none."""
    return float(connection.execute(_OLDEST).scalar() or 0.0)
