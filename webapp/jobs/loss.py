"""What becomes of the jobs that a process held when it died. Pure: no clock, no database.

A process holds up to a chunk of jobs and runs one of them at a time. Only that one may be the cause of the process's death, so
only its attempt is lost, and uses up a retry. Those that had not begun, and those that had ended and were not settled, are
queued again and use up none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol
from uuid import UUID

from webapp.jobs.error_report import ErrorReport

#: What is kept of the attempt that died with its process, ...
LOST = ErrorReport("djps.Lost", "the process that ran the job died, or its lease ran out")
#: ... and of one that its process only held.
SPARED = ErrorReport("djps.ProcessDied", "the process that held the job died while it did not run it")
#: How often a job is spared where nothing tells what its processes died of. By then it is the job itself, or what it is
#: claimed and settled with.
MOST_SPARED = 5


class Fate(StrEnum):
    """What becomes of one job."""

    #: Its attempt is lost; a retry is used up.
    LOST = "lost"
    #: It is queued again, and no retry is used up.
    SPARED = "spared"
    #: The same, and it comes in a message of its own: the next death tells whether it was the cause.
    SPARED_ALONE = "spared_alone"


@dataclass(frozen=True, slots=True)
class LastSeen:
    """What a process ran when it died.

    Args:
        job_id: the job; None: it ran none.
        attempt: which attempt.
        timed_out: seconds the attempt was allowed, when its process was killed because it took longer; else None.
    """

    job_id: UUID | None = None
    attempt: int = 0
    timed_out: float | None = None


class HeldJob(Protocol):
    """A job that a dead process held."""

    @property
    def id(self) -> UUID:
        """The job."""

    @property
    def attempt(self) -> int:
        """The attempt that was claimed."""

    @property
    def spared(self) -> int:
        """How often it was spared before."""


def fates(held: Sequence[HeldJob], seen: LastSeen | None) -> list[Fate]:
    """Decides for all jobs that one process held, in their order.

    Args:
        held: every job of the process whose end is not on record.
        seen: what it ran; None when no one knows.

    Example:
        Nothing is known of the process, and it held one job:

        >>> from types import SimpleNamespace
        >>> fates([SimpleNamespace(id=UUID(int=1), attempt=1, spared=0)], None)
        [<Fate.LOST: 'lost'>]
    """
    if seen is None:
        return [Fate.LOST] if len(held) == 1 else [Fate.SPARED_ALONE for _ in held]
    cause_is_known = any(_is_cause(job, seen) for job in held)
    return [
        Fate.LOST
        if _is_cause(job, seen) or (not cause_is_known and job.spared >= MOST_SPARED)
        else Fate.SPARED
        for job in held
    ]


def _is_cause(job: HeldJob, seen: LastSeen) -> bool:
    return job.id == seen.job_id and job.attempt == seen.attempt
