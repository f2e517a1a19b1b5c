"""Runs the statements by which batches are made, joined, closed and judged.

Functions take a connection and never commit: their callers own the transaction.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, text

from webapp.batches.decisions import Standing
from webapp.batches.model import DEEPEST, Event, Member, Pace, PartKey, Status
from webapp.flow.tenant import DEFAULT_SLUG, Tenant
from webapp.groups.model import Totals
from webapp.infra.postgres.literals import array_of, json_of
from webapp.infra.postgres.sql_files import read_sql

(
    _MAKE,
    _BY_KEY,
    _DEPTH,
    _HOLD_MEMBER,
    _JOIN_OPEN,
    _JOIN_INSIDE,
    _CLOSE,
    _CLOSE_LATE,
    _STANDING,
    _REOPEN,
    _END,
    _NOTE_EVENTS,
    _KEEP_PACE,
    _OWNER,
    _CALL_BACK,
    _BATCH_OF,
) = (
    text(read_sql(__file__, "batches", name))
    for name in (
        *("make", "by_key", "depth", "hold_member", "join_open", "join_inside", "close", "close_late"),
        *("standing", "reopen", "end", "note_events", "keep_pace", "owner", "call_back", "batch_of"),
    )
)
_TAKE_PART, _ANSWERED, _FIND_PART, _FORGET_PART = (
    text(read_sql(__file__, "parts", name)) for name in ("take", "answered", "find", "forget")
)


class NewBatch(NamedTuple):
    """A batch that is about to be stored.

    Args:
        options: the jobs of its events, by option.
        idempotency_key: as it is kept.
        open_for: seconds that it takes members.
        parent: the batch or workflow that it is a member of.
    """

    id: UUID
    name: str | None
    tenant: Tenant
    submitted_by: int | None
    options: Mapping[str, Any]
    callback_url: str | None
    open_for: float
    request_id: str | None = None
    traceparent: str | None = None
    parent: UUID | None = None
    idempotency_key: str | None = None
    fingerprint: bytes | None = None


class Judged(NamedTuple):
    """A batch that is locked, and what says how quickly it goes on."""

    id: UUID
    standing: Standing
    pace: Pace | None
    now: datetime


class Owner(NamedTuple):
    """Whose a batch is, and what it was made with."""

    name: str | None
    tenant: Tenant
    submitted_by: int | None
    request_id: str | None
    traceparent: str | None
    options: Mapping[str, Any]


class PartRow(NamedTuple):
    """A part that is there: the digest of its jobs, and what they were answered."""

    fingerprint: bytes
    answers: list[dict[str, Any]]


def make(connection: Connection, batch: NewBatch) -> bool:
    """Stores a batch without members; False where its idempotency key is taken. No batch that it is in is told of it."""
    values = {
        "id": batch.id,
        "name": batch.name,
        "tenant": batch.tenant.id,
        "submitted_by": batch.submitted_by,
        "request_id": batch.request_id,
        "traceparent": batch.traceparent,
        "parent_id": batch.parent,
        "options": json_of(dict(batch.options)),
        "callback_url": batch.callback_url,
        "idempotency_key": batch.idempotency_key,
        "fingerprint": batch.fingerprint,
        "open_for": batch.open_for,
    }
    return connection.execute(_MAKE, values).first() is not None


def by_key(connection: Connection, key: str) -> tuple[UUID, bytes] | None:
    """The batch that has an idempotency key, and the digest of its request."""
    row = connection.execute(_BY_KEY, {"key": key}).first()
    return None if row is None else (row[0], bytes(row[1]))


def depth(connection: Connection, batch_id: UUID) -> int:
    """In how many groups a batch is, itself included; counted to one more than may be."""
    return int(connection.execute(_DEPTH, {"id": batch_id, "most": DEEPEST + 1}).scalar() or 0)


def hold_member(connection: Connection, batch_id: UUID, member: Member) -> bool:
    """Keeps a member from ending until the transaction does; False where it is none that runs in this attempt."""
    values = {"id": batch_id, "job_id": member.job_id, "attempt": member.attempt}
    return connection.execute(_HOLD_MEMBER, values).first() is not None


def batch_of(connection: Connection, job_id: UUID) -> UUID | None:
    """The batch that a job which runs is a member of; None: it is of none."""
    found: UUID | None = connection.execute(_BATCH_OF, {"id": job_id}).scalar()
    return found


def join(connection: Connection, batch_id: UUID, number: int, *, from_inside: bool) -> bool:
    """Counts members that the transaction has stored; False where the batch takes none, so they must be taken back.

    Args:
        from_inside: a member adds them that is held.
    """
    statement = _JOIN_INSIDE if from_inside else _JOIN_OPEN
    return connection.execute(statement, {"id": batch_id, "number": number}).first() is not None


def close(connection: Connection, batch_id: UUID, why: str | None = None) -> bool:
    """Has a batch take no more members; False where it does not. It is to be judged then."""
    return connection.execute(_CLOSE, {"id": batch_id, "why": why}).first() is not None


def close_late(connection: Connection, why: str, limit: int) -> list[UUID]:
    """Closes batches that were open for as long as they may; they are to be judged then."""
    return list(connection.execute(_CLOSE_LATE, {"why": why, "limit": limit}).scalars())


def standing(connection: Connection, ids: Sequence[UUID]) -> list[Judged]:
    """How batches stand that are locked."""
    return [
        Judged(
            row[0],
            Standing(
                Status(row[1]),
                Totals(*row[2:7]),
                is_closed=row[7],
                is_cancelled=row[8],
                has_notes=row[9],
                wanted=frozenset(
                    event for event, is_wanted in zip(Event, row[10:13], strict=True) if is_wanted
                ),
            ),
            Pace.of(row[13]),
            row[14],
        )
        for row in connection.execute(_STANDING, {"ids": array_of(ids)})
    ]


def reopen(connection: Connection, batch_id: UUID) -> None:
    """Has a batch not be over any more."""
    connection.execute(_REOPEN, {"id": batch_id})


def end(connection: Connection, batch_id: UUID, status: Status) -> None:
    """Has a batch be over."""
    connection.execute(_END, {"id": batch_id, "status": status.value})


def note_events(connection: Connection, batch_id: UUID, jobs: Mapping[Event, UUID]) -> None:
    """Keeps which jobs tell of what."""
    connection.execute(_NOTE_EVENTS, {"id": batch_id} | {event.value: jobs.get(event) for event in Event})


def keep_pace(connection: Connection, batch_id: UUID, pace: Pace) -> None:
    """Keeps by which counts its rate goes."""
    connection.execute(_KEEP_PACE, {"id": batch_id, "pace": json.dumps(pace.document())})


def owner(connection: Connection, batch_id: UUID) -> Owner:
    """Whose a batch is that is locked."""
    row = connection.execute(_OWNER, {"id": batch_id}).one()
    return Owner(row[0], Tenant(row[1], row[2] or DEFAULT_SLUG), *row[3:])


def call_back(connection: Connection, batch_id: UUID, job_id: UUID, values: Mapping[str, Any]) -> bool:
    """Stores the job that tells of a batch's end; False where one was made for this end.

    Args:
        values: task, payload, queue, max_retries, timeout and backoff of the job.
    """
    given = {"id": batch_id, "job_id": job_id, **values}
    return bool(connection.execute(_CALL_BACK, given).rowcount)


def take_part(connection: Connection, batch_id: UUID, part: PartKey, fingerprint: bytes) -> bool:
    """Makes a part one's own until the transaction ends; False where it is there."""
    values = {"id": batch_id, "member": part.member, "part": part.name, "fingerprint": fingerprint}
    return connection.execute(_TAKE_PART, values).first() is not None


def find_part(connection: Connection, batch_id: UUID, part: PartKey) -> PartRow | None:
    """A part that is there."""
    row = connection.execute(_FIND_PART, {"id": batch_id, "member": part.member, "part": part.name}).first()
    return None if row is None else PartRow(bytes(row[0]), unpacked(row[1], row[2]))


def keep_answers(
    connection: Connection, batch_id: UUID, part: PartKey, answers: Sequence[Mapping[str, Any]]
) -> None:
    """Keeps what the items of a part were answered."""
    ids, others = packed(answers)
    values = {
        "id": batch_id,
        "member": part.member,
        "part": part.name,
        "ids": "{" + ",".join(one or "NULL" for one in ids) + "}",
        "others": json_of(others),
    }
    connection.execute(_ANSWERED, values)


def forget_part(connection: Connection, batch_id: UUID, part: PartKey) -> None:
    """Deletes a part of which nothing was stored."""
    connection.execute(_FORGET_PART, {"id": batch_id, "member": part.member, "part": part.name})


def packed(answers: Sequence[Mapping[str, Any]]) -> tuple[list[str | None], dict[str, Any]]:
    """Answers as they are kept: an id of 16 bytes for each item that was stored, and all else by its number. Pure.

    Example:
        >>> packed([{"outcome": "created", "id": "a"}, {"outcome": "invalid", "errors": []}])
        (['a', None], {'1': {'outcome': 'invalid', 'errors': []}})
    """
    plain = [
        one["id"] if one.keys() == {"outcome", "id"} and one["outcome"] == "created" else None
        for one in answers
    ]
    return plain, {
        str(number): dict(one)
        for number, (one, kept) in enumerate(zip(answers, plain, strict=True))
        if kept is None
    }


def unpacked(ids: Sequence[str | None], others: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The answers that were packed. Pure.

    Example:
        >>> unpacked(*packed([{"outcome": "created", "id": "a"}]))
        [{'outcome': 'created', 'id': 'a'}]
    """
    return [
        others[str(number)] if one is None else {"outcome": "created", "id": one}
        for number, one in enumerate(ids)
    ]
