"""Jobs that a member adds to its own batch from inside: each part once, however often the member is tried."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import TYPE_CHECKING, Any, Protocol
from uuid import UUID

from webapp.batches import members
from webapp.batches.errors import NotInBatch
from webapp.batches.model import LONGEST_PART, Member
from webapp.batches.requests import Added, Items
from webapp.jobs.errors import JobError, OptionRefused
from webapp.jobs.request import MAX_BATCH
from webapp.jobs.submission import Origin, Placed, Submission, fingerprint
from webapp.jobs.submitter import SomeRefused, checked

if TYPE_CHECKING:
    # It counts, in files that the settings name; a test of a handler has none.
    from webapp.batches.service import Batches

#: What the names of parts begin with that have none in the handler's words.
UNNAMED = "#"


class MemberFront(Protocol):
    """Where a member adds jobs.

    Args:
        batch: of which it is a member; None: of none.
        largest: the largest payload, bytes of JSON.
    """

    batch: UUID | None
    largest: int

    def add(self, part: str, items: Items) -> Added:
        """Adds jobs under the name of a part."""


class BatchFront:
    """The front door of batches for a member that runs.

    Args:
        batches: the front door.
        batch: of which it is a member.
        member: which it is.
        origin: whose it is, and where it came from.
        largest: as in `MemberFront`.
    """

    def __init__(
        self, batches: Batches, batch: UUID | None, member: Member, origin: Origin, *, largest: int
    ) -> None:
        self._batches = batches
        self._member = member
        self._origin = origin
        self.batch = batch
        self.largest = largest

    def add(self, part: str, items: Items) -> Added:
        """Adds jobs. Raises what `Batches.add` does."""
        if self.batch is None:
            raise NotInBatch(self._member.job_id)
        return self._batches.add(
            self.batch, part, items, self._origin.reach, member=self._member, origin=self._origin
        )


class OwnBatch:
    """The batch of a job that runs: what `context.batch` is.

    Args:
        job_id: the job.
        open_front: where it adds; asked for once, by the first that is wanted of it, so that an attempt without any pays nothing.
    """

    __slots__ = ("_front", "_job_id", "_numbers", "_open")

    def __init__(self, job_id: UUID, open_front: Callable[[], MemberFront]) -> None:
        self._job_id = job_id
        self._open = open_front
        self._front: MemberFront | None = None
        self._numbers = count(1)

    @property
    def id(self) -> UUID | None:
        """Its id; None: the job is in no batch."""
        return self._front_door().batch

    def add(self, jobs: Sequence[Mapping[str, Any]], part: str | None = None) -> list[Placed]:
        """Adds jobs to the batch. Arguments and errors as of `OwnBatch` in `webapp.jobs.context`."""
        front = self._front_door()
        if front.batch is None:
            raise NotInBatch(self._job_id)
        name = f"{UNNAMED}{next(self._numbers)}" if part is None else _checked(part)
        if not 1 <= len(jobs) <= MAX_BATCH:
            raise OptionRefused("jobs", f"must have 1 to {MAX_BATCH} items", len(jobs))
        wanted = [checked(one, front.largest, "jobs", str(number)) for number, one in enumerate(jobs)]
        answers = front.add(name, Items(wanted, members.plain_answers, _digest(wanted))).answers
        told = [_read(one) for one in answers]
        done = [one for one in told if isinstance(one, Placed)]
        if len(done) < len(told):
            raise SomeRefused(told)
        return done

    def _front_door(self) -> MemberFront:
        if self._front is None:
            self._front = self._open()
        return self._front


def _checked(part: object) -> str:
    if (
        not isinstance(part, str)
        or not 1 <= len(part) <= LONGEST_PART
        or not part.isprintable()
        or part.startswith(UNNAMED)
    ):
        rule = (
            f"must be a printable text of 1 to {LONGEST_PART} characters that does not begin with {UNNAMED}"
        )
        raise OptionRefused("part", rule, part)
    return part


def _digest(wanted: Sequence[Submission]) -> bytes:
    """The digest of these jobs."""
    found = hashlib.sha256()
    for one in wanted:
        found.update(fingerprint(one))
        found.update((one.idempotency_key or "").encode() + b"\0")
    return found.digest()


def _read(answer: Mapping[str, Any]) -> Placed | JobError:
    """What an answer says of a job, also one that was given to an earlier attempt."""
    if answer["outcome"] == "invalid":
        return JobError(answer["errors"][0]["rule"])
    flags = {name: bool(answer.get(name)) for name in ("held", "replaced")}
    return Placed(UUID(answer["id"]), answer["outcome"] == "created", **flags)
