"""Seals: what each is a digest of, and whether it fits the lines that are there. Pure.

A seal is the SHA-256 of a line of JSON about itself, which has the digest of the seal before, and of the lines of the record
that it is over, each as a line of JSON. Where there is a key, it is signed with HMAC-SHA-256.
"""

from __future__ import annotations

import hashlib
import hmac as signatures
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple


class Mark(NamedTuple):
    """A place in the order in which lines are sealed: by transaction, and within one by id."""

    xid: int
    id: int


#: Before all lines.
START = Mark(0, -(2**63))
#: No line has a greater id.
LAST_ID = 2**63 - 1
#: No transaction has a greater number.
LAST_XID = 2**64 - 1


@dataclass(frozen=True, slots=True)
class Seal:
    """A seal over lines of the record.

    Args:
        seq: its number; the first is 1, and there are no gaps.
        sealed_at: when it was made, by PostgreSQL's clock.
        server: the server that has numbered the transactions of its lines.
        after_id: lines of that numbering have greater ids.
        up_to: its last line; it begins after the last one of the seal before. Of one that begins a numbering: a place before all
            lines of it.
        greatest_id: the greatest id of all lines that are sealed.
        oldest_at: when the oldest of its lines was written; None where it has none.
        events: how many lines it is over; none where it begins a numbering.
        previous: the digest of the seal before, 32 bytes.
        sha256: its digest, 32 bytes.
        hmac: its signature, 32 bytes; None where there was no key.
    """

    seq: int
    sealed_at: datetime
    server: int
    after_id: int
    up_to: Mark
    greatest_id: int
    oldest_at: datetime | None
    events: int
    previous: bytes
    sha256: bytes = b""
    hmac: bytes | None = None


#: What the first seal follows.
NONE_YET = Seal(
    0, datetime(1970, 1, 1, tzinfo=UTC), 0, START.id, START, START.id, None, 0, b"", sha256=bytes(32)
)


def line_of(event: Mapping[str, Any]) -> str:
    """An event of the record as a line of JSON: every column, those that are NULL left out.

    So a column that is added later, and is NULL in older lines, changes none of them.

    Example:
        >>> line_of({"id": 7, "at": "2026-11-28T04:00:00.000001Z", "reason": None})
        '{"at":"2026-11-28T04:00:00.000001Z","id":7}'
    """
    return _json({name: value for name, value in event.items() if value is not None})


def digest_of(seal: Seal, lines: Iterable[str]) -> bytes:
    """The digest of a seal over these lines, 32 bytes; those that it has itself count for nothing."""
    about = {
        "after_id": seal.after_id,
        "events": seal.events,
        "greatest_id": seal.greatest_id,
        "oldest_at": _moment(seal.oldest_at),
        "previous": seal.previous.hex(),
        "sealed_at": _moment(seal.sealed_at),
        "seq": seal.seq,
        "server": seal.server,
        "up_to_id": seal.up_to.id,
        "up_to_xid": seal.up_to.xid,
    }
    digest = hashlib.sha256()
    for line in (_json(about), *lines):
        digest.update(line.encode() + b"\n")
    return digest.digest()


def signature_of(key: str, digest: bytes) -> bytes:
    """The signature of a digest, 32 bytes."""
    return signatures.digest(key.encode(), digest, "sha256")


def ended_numbering(newest: Seal, server: int, ahead: int | None) -> int | None:
    """The greatest id of the lines whose transactions another server has numbered; None: they go on being numbered as before.

    A restored database is on a server that numbers transactions anew, mostly from a smaller number on. Ids go on: all lines
    that come have greater ones than those that were restored.

    Args:
        newest: the newest seal; `NONE_YET` where there is none.
        server: which one this is.
        ahead: the greatest id of lines whose transactions it has not begun; None: there are none.
    """
    if newest.server == server or (newest.seq == 0 and ahead is None):
        return None
    return max(newest.greatest_id, START.id if ahead is None else ahead)


class Look(NamedTuple):
    """What a look at a seal came to.

    Args:
        fault: why it does not fit; None where it does.
        is_gone: some of its lines have gone for their age, so that only the chain and the signature could be looked at.
    """

    fault: str | None = None
    is_gone: bool = False


def look_at(seal: Seal, lines: Sequence[str], keys: Sequence[str], kept_since: datetime) -> Look:
    """Whether a seal fits its lines.

    Args:
        lines: those that are there; one more than the seal has is as good as all.
        keys: those that may have signed it; none: signatures are not looked at.
        kept_since: older lines may have gone.
    """
    if len(lines) > seal.events:
        return Look("an event was added to those that it is over")
    is_gone = len(lines) < seal.events and seal.oldest_at is not None and seal.oldest_at < kept_since
    if not is_gone:
        if missing := seal.events - len(lines):
            return Look(
                f"{missing:,} of its {seal.events:,} events {'is' if missing == 1 else 'are'} missing"
            )
        if digest_of(seal, lines) != seal.sha256:
            return Look("an event, or what the seal says of itself, was changed")
    if seal.hmac is not None and keys and not _is_signed(seal.hmac, seal.sha256, keys):
        return Look("its HMAC differs: it was made with another key")
    return Look(None, is_gone)


def place_fault(before: Seal, seal: Seal, *, must_be_signed: bool) -> tuple[int, str] | None:
    """Why a seal cannot stand after another, with the number of the one that does not fit; None where it can.

    Args:
        must_be_signed: after one that is signed. Without it a tail that was made anew by one who has no key would fit.
    """
    if seal.seq != before.seq + 1:
        return before.seq + 1, "it is missing"
    if seal.previous != before.sha256:
        return seal.seq, f"it does not follow seal {before.seq}: it was made after another one of that number"
    if must_be_signed and before.hmac is not None and seal.hmac is None:
        return seal.seq, "it is not signed, and those before are"
    begins = seal.after_id != before.after_id
    if begins and (seal.events or seal.up_to.id != START.id or seal.after_id < before.greatest_id):
        return seal.seq, "it cannot begin a numbering of transactions there"
    if not begins and seal.up_to < before.up_to:
        return seal.seq, "it ends before the one before"
    return None


def kept_since(now: datetime, days: int) -> datetime:
    """Since when lines must be there that are kept for so many days."""
    return now - timedelta(days=days)


def _is_signed(given: bytes, digest: bytes, keys: Sequence[str]) -> bool:
    return any(signatures.compare_digest(given, signature_of(key, digest)) for key in keys)


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _moment(at: datetime | None) -> str | None:
    """A moment with its microseconds, in UTC."""
    return None if at is None else at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
