"""The states of a job and the moves between them. Pure: nothing here touches a database."""

from __future__ import annotations

from enum import StrEnum


class JobStatus(StrEnum):
    """Where a job stands.

    Each value says what a crash at that point leads to.
    """

    #: Accepted and waiting: for a worker, for `run_at`, or for its next retry. Survives everything PostgreSQL survives.
    QUEUED = "queued"
    #: Claimed under a lease. A crash lets the lease run out; the sweeper then retries or buries the job.
    PROCESSING = "processing"
    #: The handler returned. Final.
    COMPLETED = "completed"
    #: Retries exhausted, or discarded; kept in the dead letter queue. Final, but for an operator's requeue.
    FAILED = "failed"
    #: Withdrawn before it finished. Final, but for an operator's requeue.
    CANCELLED = "cancelled"


class AttemptOutcome(StrEnum):
    """How one attempt ended."""

    #: The handler returned.
    COMPLETED = "completed"
    #: The handler raised, or ran past its time limit.
    FAILED = "failed"
    #: The process that ran it died, or its lease ran out.
    LOST = "lost"
    #: Handed back by a worker that was shutting down; not counted as a retry.
    RELEASED = "released"
    #: Cancelled while it ran.
    CANCELLED = "cancelled"
    #: The handler asked to come back later; not counted as a retry.
    SNOOZED = "snoozed"


#: Ends of an attempt that use up no retry.
UNBURNT = frozenset({AttemptOutcome.RELEASED, AttemptOutcome.SNOOZED})

#: States a job does not leave by itself.
FINAL = frozenset({JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED})

#: Every allowed move. `failed -> queued` and `cancelled -> queued` are the operator's requeue.
TRANSITIONS: dict[JobStatus, frozenset[JobStatus]] = {
    JobStatus.QUEUED: frozenset({JobStatus.PROCESSING, JobStatus.CANCELLED}),
    JobStatus.PROCESSING: frozenset({JobStatus.QUEUED, *FINAL}),
    JobStatus.COMPLETED: frozenset(),
    JobStatus.FAILED: frozenset({JobStatus.QUEUED}),
    JobStatus.CANCELLED: frozenset({JobStatus.QUEUED}),
}


def may_move(source: JobStatus, target: JobStatus) -> bool:
    """True if a job may go from `source` to `target`.

    Example:
        >>> may_move(JobStatus.COMPLETED, JobStatus.QUEUED)
        False
    """
    return target in TRANSITIONS[source]
