"""Makes jobs that no request asks for at that moment: each goes the way of a submission, and is refused where that would be.

Schedules, batches and workflows have jobs made like this, in transactions of their own.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import UUID

from webapp.flow.book import FlowBook
from webapp.infra.telemetry import metrics
from webapp.jobs.admission import Admission
from webapp.jobs.errors import JobError, OptionRefused
from webapp.jobs.options import NO_OPTIONS, Options
from webapp.jobs.service import in_lane
from webapp.jobs.submission import NewJob, Origin, Rules, Submission
from webapp.jobs.unique import OnConflict, Unique, While

logger = logging.getLogger(__name__)

#: Longest reason that is kept of a job that could not be made, characters.
LONGEST_REASON = 500


class Asked(NamedTuple):
    """A job that is to be made.

    Args:
        id: of the job.
        origin: for whom.
        queue: where it waits, whatever its handler says by now; None: where that says.
        group: the batch or workflow that it belongs to.
    """

    submission: Submission
    id: UUID
    origin: Origin
    queue: str | None = None
    group: UUID | None = None


class Refusal(NamedTuple):
    """Why a job cannot be stored.

    Args:
        words: in one sentence; never what was given, which may be a secret.
        is_full: there is no room for it now, and may be later.
    """

    words: str
    is_full: bool = False


def submission_of(
    job: Mapping[str, Any], payload: Mapping[str, Any] | None = None, run_at: datetime | None = None
) -> Submission:
    """What a job asks for that is kept as a document, with its payload and options. Pure.

    Args:
        payload: in the place of its own.
        run_at: not before, in the place of its own delay.

    Example:
        >>> submission_of({"payload": {"task": "noop"}, "priority": 7}).options.priority
        7
    """
    given = {name: value for name, value in job.items() if name != "payload" and value is not None}
    if "tags" in given:
        given["tags"] = tuple(given["tags"])
    if "unique" in given:
        given["unique"] = _unique(given["unique"])
    if run_at is not None:
        given.pop("delay", None)
        given["run_at"] = run_at
    whole = dict(job["payload"] if payload is None else payload)
    return Submission(whole, None, Options(**given) if given else NO_OPTIONS)


def _unique(given: Mapping[str, Any]) -> Unique:
    states = given.get("while")
    return Unique(
        given["key"],
        None if states is None else While(states),
        given.get("for"),
        OnConflict(given.get("on_conflict") or OnConflict.RETURN),
        given.get("max_wait"),
    )


class Making:
    """Makes jobs.

    Args:
        rules: what may be submitted.
        book: knows which queues and tasks have limits.
        admission: knows which queues are full.
    """

    def __init__(self, rules: Rules, book: FlowBook, admission: Admission) -> None:
        self.rules = rules
        self.book = book
        self._admission = admission

    def can_judge(self, payload: Mapping[str, object]) -> bool:
        """True if this process knows what runs a job with this payload."""
        return self.rules.can_judge(payload)

    def made(self, wanted: Sequence[Asked]) -> list[NewJob | Refusal]:
        """The job of each, or why it cannot be stored."""
        now, rules = datetime.now(UTC), self.book.rules()
        made = [self._made(one, now) for one in wanted]
        jobs = [in_lane(one, rules) for one in made if isinstance(one, NewJob)]
        full = self._admission.judge(jobs, rules) if rules.bounded_queues else {}
        by_id: dict[UUID, NewJob | Refusal] = {job.id: job for job in jobs}
        by_id |= {
            job_id: Refusal(str(error)[:LONGEST_REASON], is_full=True) for job_id, error in full.items()
        }
        return [by_id[one.id] if isinstance(one, NewJob) else one for one in made]

    def _made(self, one: Asked, now: datetime) -> NewJob | Refusal:
        try:
            return self.completed(one, now)
        except OptionRefused as refused:
            # Not what was given: it may be a secret in a URL.
            return Refusal(f"{refused.field} {refused.rule}"[:LONGEST_REASON])
        except JobError as refused:
            return Refusal(str(refused)[:LONGEST_REASON])
        except Exception as error:
            # A handler's own check of payloads may raise anything.
            logger.exception("job could not be made", extra={"job_id": str(one.id)})
            return Refusal(f"the job could not be made ({type(error).__name__})")

    def completed(self, one: Asked, now: datetime) -> NewJob:
        """The job that is stored.

        Raises:
            UnknownTask, OptionRefused, PayloadRefused: as for a submission.
        """
        submission = one.submission
        job = self.rules.complete(submission, one.id, one.origin, now, suggest=False)
        if one.queue is not None and job.queue != one.queue:
            # Its handler has another queue by now; who asked for the job may not reach that one.
            submission = replace(submission, options=replace(submission.options, queue=one.queue))
            job = self.rules.complete(submission, one.id, one.origin, now, suggest=False)
        return job if one.group is None else replace(job, group=one.group)

    def note(self, jobs: Iterable[NewJob]) -> None:
        """Counts jobs that are stored and committed."""
        created = list(jobs)
        if created:
            metrics.jobs_created.inc(len(created))
            self._admission.note(created)
