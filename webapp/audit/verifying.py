"""Verifies the record against its seals: from the first on, a seal and its lines at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from sqlalchemy import Connection, Engine

from webapp.audit import seal_store
from webapp.audit.seals import (
    LAST_ID,
    NONE_YET,
    START,
    Look,
    Mark,
    Seal,
    ended_numbering,
    kept_since,
    look_at,
    place_fault,
)
from webapp.infra.postgres.engine import in_one_trip

#: Seals that are read at once.
PAGE = 500
#: Lines without a seal are counted up to so many.
MOST_COUNTED = 100_000


@dataclass(frozen=True, slots=True)
class Broken:
    """A seal that does not fit.

    Args:
        seq: its number.
        why: in words that follow "seal 7 does not fit:".
    """

    seq: int
    why: str


@dataclass(frozen=True, slots=True)
class Verified:
    """What a verification came to.

    Args:
        events: lines that fit their seals.
        seals: seals that fit.
        gone: those of them whose lines have gone for their age, in all or in part; they fit the chain.
        signed: those of them that are signed.
        newest: the digest of the last one that fits, in hex; None where none does.
        unsealed: lines that wait for a seal, up to `MOST_COUNTED`.
        broken: the first seal that does not fit.
    """

    events: int
    seals: int
    gone: int
    signed: int
    newest: str | None
    unsealed: int
    broken: Broken | None = None


def verify(
    engine: Engine,
    keys: Sequence[str],
    days: int,
    *,
    digest: bytes | None = None,
    may_be_unsigned: bool = False,
) -> Verified:
    """Looks at all seals and lines, until one does not fit.

    Args:
        keys: those that may have signed; none: signatures are not looked at.
        days: days that lines are kept: older ones may be gone.
        digest: of a seal that must be there.
        may_be_unsigned: a seal without a signature may follow one that has it.
    """
    walk = partial(
        _walk,
        keys=keys,
        days=days,
        digest=digest,
        must_be_signed=bool(keys) and not may_be_unsigned,
    )
    return in_one_trip(engine, walk)


def fault_of_one(connection: Connection, seq: int, keys: Sequence[str], days: int) -> Broken | None:
    """Looks at one seal, its place after the one before, and its lines; None where it fits.

    Args:
        seq: its number, from 1 on.
    """
    near = {one.seq: one for one in seal_store.page(connection, after=max(0, seq - 2), limit=2)}
    for number in (seq - 1, seq):
        if number and number not in near:
            return Broken(number, "it is missing")
    before, seal = near.get(seq - 1, NONE_YET), near[seq]
    if fault := place_fault(before, seal, must_be_signed=False):
        return Broken(*fault)
    look = _Lines(connection, keys, days).look(before.up_to, seal)
    return None if look.fault is None else Broken(seq, look.fault)


class _Lines:
    """Looks at the lines of seals, one seal after the other.

    Args:
        connection: where they are.
        keys: those that may have signed.
        days: days that lines are kept.
    """

    def __init__(self, connection: Connection, keys: Sequence[str], days: int) -> None:
        self._connection = connection
        self._keys = keys
        self._since = kept_since(seal_store.here(connection).now, days)
        self._numbering: tuple[int, int] | None = None

    def look(self, after: Mark, seal: Seal) -> Look:
        """Whether a seal fits the lines that are there, after a place."""
        until_id = self._until(seal.after_id)
        lines = seal_store.within(self._connection, after, seal, until_id=until_id)
        return look_at(seal, lines, self._keys, self._since)

    def _until(self, after_id: int) -> int:
        """The greatest id of a numbering."""
        if self._numbering is None or self._numbering[0] != after_id:
            self._numbering = (after_id, self._end_of(after_id))
        return self._numbering[1]

    def _end_of(self, after_id: int) -> int:
        following = seal_store.next_numbering(self._connection, after_id)
        if following is not None:
            return following
        # A database that was restored a moment ago may have lines whose numbering no seal has begun yet.
        newest = seal_store.newest(self._connection)
        here = seal_store.here(self._connection)
        ahead = None if newest.server == here.server else seal_store.ahead(self._connection)
        ended = ended_numbering(newest, here.server, ahead)
        return LAST_ID if ended is None else ended


def _walk(
    connection: Connection, *, keys: Sequence[str], days: int, digest: bytes | None, must_be_signed: bool
) -> Verified:
    looks = _Lines(connection, keys, days)
    before, events, gone, signed, broken = NONE_YET, 0, 0, 0, None
    is_found = digest is None
    for seal in _seals(connection):
        fault = place_fault(before, seal, must_be_signed=must_be_signed)
        look = looks.look(_place_after(before, seal), seal) if fault is None else Look()
        if look.fault is not None:
            fault = seal.seq, look.fault
        if fault is not None:
            broken = Broken(*fault)
            break
        gone += look.is_gone
        events += 0 if look.is_gone else seal.events
        signed += seal.hmac is not None
        is_found = is_found or seal.sha256 == digest
        before = seal
    if broken is None and not is_found:
        broken = Broken(
            before.seq + 1,
            "seals with the digest that was given, and after it, are missing or were made anew",
        )
    unsealed = seal_store.waiting(connection, before, limit=MOST_COUNTED) if broken is None else 0
    newest = before.sha256.hex() if before.seq else None
    return Verified(events, before.seq, gone, signed, newest, unsealed, broken)


def _place_after(before: Seal, seal: Seal) -> Mark:
    """After which place a seal's lines are; one that begins a numbering is over all places before its own, and has no line."""
    return before.up_to if seal.after_id == before.after_id else START


def _seals(connection: Connection) -> Iterator[Seal]:
    after = 0
    while page := seal_store.page(connection, after=after, limit=PAGE):
        yield from page
        after = page[-1].seq
