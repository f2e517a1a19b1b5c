"""Makes the jobs of firings: each goes the way of a submission, and is refused where that would be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime  # noqa: F401 - UTC: the example of a docstring
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection
from uuid_utils.compat import uuid7

from webapp.flow.reach import EVERYTHING
from webapp.infra.jsontext import iso
from webapp.jobs import making
from webapp.jobs.batches import Batch, insert_batch
from webapp.jobs.errors import JobError
from webapp.jobs.making import LONGEST_REASON, Asked, Making, Refusal
from webapp.jobs.submission import NewJob, Origin, Submission
from webapp.schedules.model import Spec

#: No request and no trace is the cause of a firing. Schedules are the default tenant's.
_NO_ORIGIN = Origin(None, None, EVERYTHING, None)


class Wanted(NamedTuple):
    """A job that is to be made.

    Args:
        queue: where it waits.
        at: the nominal time.
        run_at: not before; None: as the job's options say.
    """

    spec: Spec
    queue: str
    at: datetime
    run_at: datetime | None = None


def submission_of(
    job: Mapping[str, Any], at: datetime, time_key: str | None, run_at: datetime | None = None
) -> Submission:
    """What a schedule's job asks for at a nominal time. Pure.

    Example:
        >>> submission_of({"payload": {"task": "noop"}}, datetime(2030, 1, 1, tzinfo=UTC), "at").payload
        {'task': 'noop', 'at': '2030-01-01T00:00:00Z'}
    """
    payload = dict(job["payload"])
    if time_key is not None:
        payload[time_key] = iso(at)
    return making.submission_of(job, payload, run_at)


class JobMaker(Making):
    """Makes jobs, and stores them in the transaction of their firings."""

    def check(self, spec: Spec, now: datetime) -> NewJob:
        """The job that a spec would fire now.

        Raises:
            UnknownTask, OptionRefused, PayloadRefused: as for a submission.
        """
        submission = submission_of(spec.job, now, spec.time_key)
        return self.rules.complete(submission, uuid7(), _NO_ORIGIN, now)

    def make(self, wanted: Sequence[Wanted]) -> list[NewJob | str]:
        """The job of each, or why it cannot be stored, in one sentence."""
        made = self.made([_asked(one) for one in wanted])
        return [one.words if isinstance(one, Refusal) else one for one in made]

    def store(self, connection: Connection, jobs: Sequence[NewJob]) -> Batch:
        """Stores jobs; the dispatcher sends them.

        Raises:
            KeyRace, UniqueRace: a request that owns a key is not through yet; nothing may be committed.
        """
        if not jobs:
            return Batch()
        return insert_batch(connection, jobs, EVERYTHING, dispatched=False, key_ttl=self.rules.limits.key_ttl)


def _asked(one: Wanted) -> Asked:
    submission = submission_of(one.spec.job, one.at, one.spec.time_key, one.run_at)
    return Asked(submission, uuid7(), _NO_ORIGIN, one.queue)


def why_not(answer: object) -> tuple[str | None, UUID | None, bool]:
    """Why a job was not stored, which job it is instead, and whether that is what was asked. Pure.

    Args:
        answer: of `Batch.answer`.
    """
    if isinstance(answer, JobError):
        return str(answer)[:LONGEST_REASON], None, False
    placed_id: UUID | None = getattr(answer, "id", None)
    if getattr(answer, "held", False):
        return "another job holds its unique key", placed_id, True
    return None, placed_id, True
