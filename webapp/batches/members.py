"""Members of batches: how they come in, in the transaction of a caller. What the front door of batches does, and what others that stand above build on.

Functions take a connection and never commit. Another room calls them in this order: `make_child`, then
`add_members` for each part, and at the end `store.close` and `course.judge`; all of it may be one transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

from sqlalchemy import Connection

from webapp.batches import store
from webapp.batches.errors import BatchClosed, BatchFieldRefused, NotAMember
from webapp.batches.model import DEEPEST, FIRST_PART, Member, PartKey
from webapp.batches.store import NewBatch
from webapp.flow.reach import EVERYTHING, Reach
from webapp.jobs.batches import Batch, insert_batch
from webapp.jobs.broken_rules import field_of, rule_of
from webapp.jobs.errors import PayloadRefused
from webapp.jobs.submission import KEY_TTL, NewJob, Placed

#: Answers of the items of a part, in the words of who asked.
Answers = list[dict[str, Any]]


class PartTaken(Exception):
    """The part is there by now: another request has added it."""


def make_child(connection: Connection, batch: NewBatch) -> bool:
    """Stores a batch that is a member of a group which the caller counts itself, as a workflow does its steps.

    The group of `batch.parent` is told of the batch's end by a note, as of that of a job: `member_id` is the batch. Its `total` is not
    touched here. False where its idempotency key is taken.

    Example:
        >>> make_child(connection, NewBatch(uuid7(), "map", tenant, None, {}, None, 86_400.0, parent=workflow))  # doctest: +SKIP
        True
    """
    return store.make(connection, batch)


def add_members(
    connection: Connection,
    batch_id: UUID,
    jobs: Sequence[NewJob],
    *,
    reach: Reach = EVERYTHING,
    part: PartKey | None = None,
    fingerprint: bytes = b"",
    key_ttl: float = KEY_TTL,
) -> Batch | None:
    """Stores jobs as members of a batch that is not closed; the dispatcher sends them.

    The jobs are complete and in their lanes, as `Rules.complete` and `in_lane` make them; whose they are is said by them. Up to 10,000
    make a transaction of a second or so.

    Args:
        part: what these jobs are called: where it was added before, nothing is stored, and None is returned. So a process that died
            between two parts goes on where it was.
        fingerprint: of what the part was made from.

    Raises:
        BatchClosed: it takes no more; what is stored must be taken back.
        KeyRace, UniqueRace: a request that owns a key is not through yet; likewise.

    Example:
        >>> add_members(connection, child, jobs[:5_000], part=PartKey("0"))  # doctest: +SKIP
    """
    if part is not None and not store.take_part(connection, batch_id, part, fingerprint):
        return None
    members = [replace(job, group=batch_id) for job in jobs]
    stored = insert_batch(connection, members, reach, dispatched=False, key_ttl=key_ttl)
    if not store.join(connection, batch_id, len(stored.created), from_inside=False):
        raise BatchClosed(batch_id)
    if part is not None:
        told = plain_answers([stored.answer(job) for job in members])
        store.keep_answers(connection, batch_id, part, told)
    return stored


def plain_answers(placed: Sequence[object]) -> Answers:
    """What jobs are answered where no request waits for it. Pure."""
    return [_plain(one) for one in placed]


def _plain(one: object) -> dict[str, Any]:
    if isinstance(one, Placed):
        answer: dict[str, Any] = {"outcome": "created" if one.created else "existing", "id": str(one.id)}
        flags = {"held": one.held, "replaced": one.replaced}
        return answer | {name: True for name, is_so in flags.items() if is_so}
    return {"outcome": "invalid", "errors": [{"field": "body", "rule": _said(one), "given": "this job"}]}


def _said(error: object) -> str:
    """Why a job was refused; of a payload that breaks its handler's model, the first rule that it breaks."""
    if not isinstance(error, PayloadRefused):
        return str(error)
    broken = error.error.errors(include_url=False)[0]
    return f"{field_of(broken, 'payload')} {rule_of(broken)}"


def join_parent(connection: Connection, parent: UUID, member: Member | None) -> None:
    """Counts a batch that the transaction has stored as a member of another.

    Args:
        member: of the parent, that adds it from inside.

    Raises:
        BatchClosed, NotAMember: the parent does not take it.
        BatchFieldRefused: it would be too deep.
    """
    if store.depth(connection, parent) >= DEEPEST:
        raise BatchFieldRefused(
            "parent", f"must be in at most {DEEPEST - 1} batches, itself included", parent
        )
    _hold(connection, parent, member)
    _count(connection, parent, 1, member)


def _hold(connection: Connection, batch_id: UUID, member: Member | None) -> None:
    if member is not None and not store.hold_member(connection, batch_id, member):
        raise NotAMember(batch_id, member.job_id, member.attempt)


def _count(connection: Connection, batch_id: UUID, number: int, member: Member | None) -> None:
    if not store.join(connection, batch_id, number, from_inside=member is not None):
        raise BatchClosed(batch_id, "is closed" if member is None else "is being cancelled")


class Adding:
    """Adds the jobs of a request to a batch, in the transaction that stores them: what `Jobs.submit_many` asks of a `Joining`.

    Args:
        batch_id: the batch.
        part: what they are called.
        fingerprint: the digest of the request.
        answers_of: what its items are answered, by what became of those that were judged.
        first: makes the batch itself, in the same transaction.
        member: which adds them from inside.
    """

    def __init__(
        self,
        batch_id: UUID,
        part: PartKey,
        fingerprint: bytes,
        answers_of: Callable[[Sequence[object]], Answers],
        *,
        first: Callable[[Connection], None] | None = None,
        last: Callable[[Connection], None] | None = None,
        member: Member | None = None,
    ) -> None:
        self.group = batch_id
        self._part = part
        self._fingerprint = fingerprint
        self._answers_of = answers_of
        self._first = first
        self._last = last
        self._member = member
        #: What was answered, once it is stored.
        self.answers: Answers = []

    def begin(self, connection: Connection) -> None:
        """Comes before the jobs.

        Raises:
            PartTaken: another request has added the part.
        """
        if self._first is not None:
            self._first(connection)
        if not store.take_part(connection, self.group, self._part, self._fingerprint):
            raise PartTaken

    def end(self, connection: Connection, placed: Sequence[object], created: int) -> None:
        """Comes after them. Locks the member, which cannot end from then on, and the batch: both for little more than the commit.

        Raises:
            NotAMember: the member does not run.
            BatchClosed: it takes no more.
        """
        self.answers = self._answers_of(placed)
        if self._part.name == FIRST_PART or any(one["outcome"] != "invalid" for one in self.answers):
            store.keep_answers(connection, self.group, self._part, self.answers)
        else:
            # Nothing came of it, so its sender may mend it and send it again.
            store.forget_part(connection, self.group, self._part)
        _hold(connection, self.group, self._member)
        _count(connection, self.group, created, self._member)
        if self._last is not None:
            self._last(connection)
