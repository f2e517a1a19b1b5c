"""Runs the statements about seals. Functions take a connection and never commit."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, text

from webapp.audit.seals import LAST_ID, LAST_XID, NONE_YET, START, Mark, Seal, line_of
from webapp.infra.postgres.sql_files import read_sql

#: Names the lock of the one writer among PostgreSQL's advisory locks: "djpsseal" in ASCII.
LOCK = int.from_bytes(b"djpsseal")

_ALONE, _NEWEST, _PAGE, _ADD, _HERE, _AHEAD = (
    text(read_sql(__file__, "seals", name)) for name in ("alone", "newest", "page", "add", "here", "ahead")
)
_FIRST_OF, _NEXT_NUMBERING, _UNSEALED, _WITHIN, _WAITING, _OLDEST_WAITING, _HAS_WAITING = (
    text(read_sql(__file__, "seals", name))
    for name in (
        "first_of",
        "next_numbering",
        "unsealed",
        "within",
        "waiting",
        "oldest_waiting",
        "has_waiting",
    )
)


class Line(NamedTuple):
    """A line of the record that is to be sealed.

    Args:
        mark: its place in the order.
        at: when it was written, as text in ISO 8601 with microseconds.
        text: itself as JSON.
    """

    mark: Mark
    at: str
    text: str


class Here(NamedTuple):
    """Where and when something is done.

    Args:
        now: by PostgreSQL's clock.
        server: its system identifier.
    """

    now: datetime
    server: int


def alone(connection: Connection) -> bool:
    """True if this transaction is the one that may make a seal now."""
    return bool(connection.execute(_ALONE, {"lock": LOCK}).scalar_one())


def newest(connection: Connection) -> Seal:
    """The newest seal, or `NONE_YET`."""
    row = connection.execute(_NEWEST).mappings().first()
    return NONE_YET if row is None else _seal_of(row)


def page(connection: Connection, *, after: int, limit: int) -> list[Seal]:
    """Seals in their order, after one's number."""
    return [_seal_of(row) for row in connection.execute(_PAGE, {"after": after, "limit": limit}).mappings()]


def add(connection: Connection, seal: Seal) -> None:
    """Stores a seal.

    Raises:
        IntegrityError: there is one of its number.
    """
    values = {
        "seq": seal.seq,
        "sealed_at": seal.sealed_at,
        "server": seal.server,
        "after_id": seal.after_id,
        "up_to_xid": seal.up_to.xid,
        "up_to_id": seal.up_to.id,
        "greatest_id": seal.greatest_id,
        "oldest_at": seal.oldest_at,
        "events": seal.events,
        "previous": seal.previous,
        "sha256": seal.sha256,
        "hmac": seal.hmac,
    }
    connection.execute(_ADD, values)


def here(connection: Connection) -> Here:
    """Which server this is, and its time."""
    return Here(*connection.execute(_HERE).one())


def ahead(connection: Connection) -> int | None:
    """The greatest id of lines whose transactions this server has not begun; None where there are none."""
    found: int | None = connection.execute(_AHEAD).scalar()
    return found


def beginning(connection: Connection, after_id: int) -> Mark:
    """The place from which on this server numbers lines with greater ids; none of them is before it."""
    return Mark(int(connection.execute(_FIRST_OF, {"after_id": after_id}).scalar_one()), START.id)


def next_numbering(connection: Connection, after_id: int) -> int | None:
    """After which id the next numbering begins, where a seal has begun one."""
    found: int | None = connection.execute(_NEXT_NUMBERING, {"after_id": after_id}).scalar()
    return found


def unsealed(
    connection: Connection, newest: Seal, *, limit: int, until_id: int = LAST_ID, before: int | None = None
) -> list[Line]:
    """Lines after the newest seal, the first in order, of transactions that have ended.

    Args:
        until_id: those with greater ids are left out.
        before: those of transactions from this one on are left out; None: from the oldest that runs on.
    """
    values = _after(newest) | {"until_id": until_id, "before": before, "limit": limit}
    return [_line_of(row) for row in connection.execute(_UNSEALED, values).mappings()]


def within(connection: Connection, after: Mark, seal: Seal, *, until_id: int) -> list[str]:
    """The lines that a seal is over, as far as they are there; of those that were added, one.

    Args:
        after: they are after this place.
        until_id: the greatest id of its numbering.
    """
    values = {
        "xid": after.xid,
        "id": after.id,
        "up_to_xid": seal.up_to.xid,
        "up_to_id": seal.up_to.id,
        "after_id": seal.after_id,
        "until_id": until_id,
        "limit": seal.events + 1,
    }
    return [_line_of(row).text for row in connection.execute(_WITHIN, values).mappings()]


def waiting(connection: Connection, newest: Seal, *, limit: int) -> int:
    """How many lines are not sealed, counted up to a limit."""
    return int(connection.execute(_WAITING, _after(newest) | {"limit": limit}).scalar_one())


def oldest_waiting(connection: Connection) -> float:
    """How long the act is ago that waits longest for its seal, seconds; 0 where none does."""
    last = newest(connection)
    values = _after(last) | {"server": last.server, "last_xid": LAST_XID}
    found = connection.execute(_OLDEST_WAITING, values).scalar()
    return max(0.0, float(found or 0.0))


def has_waiting(connection: Connection, name: str) -> bool:
    """True if a partition of the record has lines that are not sealed."""
    values = _after(newest(connection)) | {"name": name}
    return bool(connection.execute(_HAS_WAITING, values).scalar_one())


def _after(seal: Seal) -> dict[str, int]:
    return {"xid": seal.up_to.xid, "id": seal.up_to.id, "after_id": seal.after_id}


def _line_of(event: Mapping[Any, Any]) -> Line:
    return Line(Mark(int(event["xid"]), event["id"]), event["at"], line_of(event))


def _seal_of(row: Mapping[Any, Any]) -> Seal:
    hmac = row["hmac"]
    return Seal(
        row["seq"],
        row["sealed_at"],
        row["server"],
        row["after_id"],
        Mark(int(row["up_to_xid"]), row["up_to_id"]),
        row["greatest_id"],
        row["oldest_at"],
        row["events"],
        bytes(row["previous"]),
        bytes(row["sha256"]),
        None if hmac is None else bytes(hmac),
    )
