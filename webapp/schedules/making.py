"""Makes the jobs of firings: each goes the way of a submission, and is refused where that would be."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection
from uuid_utils.compat import uuid7

from webapp.flow.book import FlowBook
from webapp.flow.reach import EVERYTHING
from webapp.infra.jsontext import iso
from webapp.infra.telemetry import metrics
from webapp.jobs.admission import Admission
from webapp.jobs.batches import Batch, insert_batch
from webapp.jobs.errors import JobError, OptionRefused
from webapp.jobs.options import NO_OPTIONS, Options
from webapp.jobs.service import in_lane
from webapp.jobs.submission import NewJob, Origin, Rules, Submission
from webapp.jobs.unique import OnConflict, Unique, While
from webapp.schedules.model import Spec

logger = logging.getLogger(__name__)

#: Longest reason that is kept with a firing, characters.
LONGEST_REASON = 500
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
    given = {name: value for name, value in job.items() if name != "payload" and value is not None}
    if "tags" in given:
        given["tags"] = tuple(given["tags"])
    if "unique" in given:
        given["unique"] = _unique(given["unique"])
    if run_at is not None:
        given.pop("delay", None)
        given["run_at"] = run_at
    return Submission(payload, None, Options(**given) if given else NO_OPTIONS)


def _unique(given: Mapping[str, Any]) -> Unique:
    states = given.get("while")
    return Unique(
        given["key"],
        None if states is None else While(states),
        given.get("for"),
        OnConflict(given.get("on_conflict") or OnConflict.RETURN),
        given.get("max_wait"),
    )


class JobMaker:
    """Makes jobs, and stores them in the transaction of their firings.

    Args:
        rules: what may be submitted.
        book: knows which queues and tasks have limits.
        admission: knows which queues are full.
    """

    def __init__(self, rules: Rules, book: FlowBook, admission: Admission) -> None:
        self._rules = rules
        self._book = book
        self._admission = admission

    def check(self, spec: Spec, now: datetime) -> NewJob:
        """The job that a spec would fire now.

        Raises:
            UnknownTask, OptionRefused, PayloadRefused: as for a submission.
        """
        submission = submission_of(spec.job, now, spec.time_key)
        return self._rules.complete(submission, uuid7(), _NO_ORIGIN, now)

    def can_judge(self, payload: Mapping[str, object]) -> bool:
        """True if this process knows what runs a job with this payload."""
        return self._rules.can_judge(payload)

    def make(self, wanted: Sequence[Wanted]) -> list[NewJob | str]:
        """The job of each, or why it cannot be stored, in one sentence."""
        now, rules = datetime.now(UTC), self._book.rules()
        made = [self._made(one, now) for one in wanted]
        jobs = [in_lane(one, rules) for one in made if not isinstance(one, str)]
        full = self._admission.judge(jobs, rules) if rules.bounded_queues else {}
        by_id = {job.id: job for job in jobs}
        return [
            one if isinstance(one, str) else str(full[one.id]) if one.id in full else by_id[one.id]
            for one in made
        ]

    def _made(self, one: Wanted, now: datetime) -> NewJob | str:
        submission = submission_of(one.spec.job, one.at, one.spec.time_key, one.run_at)
        try:
            job = self._rules.complete(submission, uuid7(), _NO_ORIGIN, now, suggest=False)
            if job.queue != one.queue:
                # Its handler has another queue by now; who made the schedule may not reach that one.
                options = replace(submission.options, queue=one.queue)
                submission = replace(submission, options=options)
                job = self._rules.complete(submission, job.id, _NO_ORIGIN, now, suggest=False)
        except OptionRefused as refused:
            # Not what was given: it may be a secret in a URL.
            return f"{refused.field} {refused.rule}"[:LONGEST_REASON]
        except JobError as refused:
            return str(refused)[:LONGEST_REASON]
        except Exception as error:
            # A handler's own check of payloads may raise anything.
            logger.exception("job of a schedule could not be made", extra={"at": iso(one.at)})
            return f"the job could not be made ({type(error).__name__})"
        return job

    def store(self, connection: Connection, jobs: Sequence[NewJob]) -> Batch:
        """Stores jobs; the dispatcher sends them.

        Raises:
            KeyRace, UniqueRace: a request that owns a key is not through yet; nothing may be committed.
        """
        if not jobs:
            return Batch()
        return insert_batch(
            connection, jobs, EVERYTHING, dispatched=False, key_ttl=self._rules.limits.key_ttl
        )

    def note(self, jobs: Iterable[NewJob]) -> None:
        """Counts jobs that are stored and committed."""
        created = list(jobs)
        if created:
            metrics.jobs_created.inc(len(created))
            self._admission.note(created)


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
