"""What batches refuse, and why. Each says it in one sentence."""

from __future__ import annotations

from uuid import UUID


class BatchError(Exception):
    """The base of every error about batches."""


class UnknownBatch(BatchError):
    """No batch has this id, or it is not within reach."""

    def __init__(self, batch_id: UUID) -> None:
        super().__init__(f"no batch has the id {batch_id}")
        self.batch_id = batch_id


class BatchGone(BatchError):
    """The batch was deleted for its age, not long ago."""

    def __init__(self, batch_id: UUID) -> None:
        super().__init__(f"batch {batch_id} was deleted for its age")


class BatchConflict(BatchError):
    """The batch, or a member, is not as the request needs it; nothing was changed."""


class BatchClosed(BatchConflict):
    """It takes no more members."""

    def __init__(self, batch_id: UUID, why: str = "is closed") -> None:
        super().__init__(f"batch {batch_id} {why} and takes no more jobs; nothing was stored")


class BatchEnded(BatchConflict):
    """All of its members have ended, so there is nothing to cancel."""

    def __init__(self, batch_id: UUID, status: str) -> None:
        super().__init__(f"batch {batch_id} is {status} already; nothing of it can be cancelled")


class NotAMember(BatchConflict):
    """A job adds others from inside that is no running member of this batch."""

    def __init__(self, batch_id: UUID, job_id: UUID, attempt: int) -> None:
        super().__init__(
            f"job {job_id} is no member of batch {batch_id} that runs in attempt {attempt}; nothing was stored"
        )


class PartBusy(BatchConflict):
    """Another request with this part is not through yet."""

    def __init__(self, part: str) -> None:
        super().__init__(f"part {part!r} is just being added by another request; send this one again")


class BatchFieldRefused(BatchError):
    """A field breaks a rule that cannot be judged by itself.

    Args:
        field: of the request.
        rule: that it breaks.
        given: what it says.
    """

    def __init__(self, field: str, rule: str, given: object) -> None:
        super().__init__(f"{field} {rule}; given: {str(given)[:100]!r}")
        self.field = field
        self.rule = rule
        self.given = given


class PartReused(BatchFieldRefused):
    """A part was sent with other jobs before."""

    def __init__(self, part: str) -> None:
        super().__init__("part", "was used with other jobs; give these another name", part)


class BatchKeyReused(BatchFieldRefused):
    """An idempotency key was used with another request for a batch."""

    def __init__(self, key: str, batch_id: UUID | None) -> None:
        which = "" if batch_id is None else f", for batch {batch_id}"
        super().__init__("Idempotency-Key", f"was used with another request{which}", key)


class NotInBatch(Exception):
    """A handler adds to the batch of a job that is in none."""

    def __init__(self, job_id: UUID) -> None:
        super().__init__(f"job {job_id} is in no batch, so its handler cannot add to one")
