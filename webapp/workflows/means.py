"""What workflows are moved on with, and what each transaction of it has done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

from sqlalchemy import Connection

from webapp.batches import course
from webapp.batches.course import CallbackTerms, Followed
from webapp.flow.reach import Reach
from webapp.flow.tenant import Tenant
from webapp.infra.telemetry import metrics
from webapp.jobs import insert
from webapp.jobs.joining import Hints
from webapp.jobs.making import Making
from webapp.jobs.submission import NewJob, Origin
from webapp.workflows.model import Status, StepStatus, WorkflowRow

#: Jobs that are stored together whose statement gets the time that a batch takes.
MANY = 100


@dataclass(frozen=True, slots=True)
class Means:
    """What workflows are moved on with.

    Args:
        making: makes the jobs of steps.
        hints: tells the workers of them.
        largest: largest payload as JSON, bytes.
        callbacks: how callbacks of batches are stored.
    """

    making: Making
    hints: Hints
    largest: int
    callbacks: CallbackTerms


@dataclass(slots=True)
class Done:
    """What a transaction did.

    Args:
        status: how the workflow stands.
        jobs: those that were stored, of steps and of what follows the end.
        told: those of them that workers are to be told of.
        steps: of how many steps it is known by now what they came to, by that.
        cancelled: how many jobs were cancelled that had not begun.
        has_ended: the workflow has, by this transaction.
        parent_id: the group that it is a member of.
        followed: what followed in batches that are steps.
    """

    status: Status
    jobs: list[NewJob] = field(default_factory=list)
    told: list[NewJob] = field(default_factory=list)
    steps: Counter[StepStatus] = field(default_factory=Counter)
    cancelled: int = 0
    has_ended: bool = False
    parent_id: UUID | None = None
    followed: list[Followed] = field(default_factory=list)


def origin_of(workflow: WorkflowRow) -> Origin:
    """For whom the jobs of a workflow are made: its tenant, as whose it was submitted."""
    reach = Reach(Tenant(workflow.tenant, workflow.tenant_slug), None)
    return Origin(workflow.request_id, workflow.traceparent, reach, workflow.submitted_by)


def store_jobs(
    connection: Connection, means: Means, jobs: Sequence[NewJob], done: Done, *, is_told: bool = True
) -> None:
    """Stores jobs of one group.

    Args:
        is_told: workers are told of them after the commit, where there is room; else the dispatcher finds them.
    """
    if not jobs:
        return
    if len(jobs) > MANY:
        insert.allow_time(connection)
    stored = insert.insert_many(connection, jobs, dispatched=is_told and _are_wanted(means, jobs))
    done.jobs += [job for job in jobs if job.id in stored]
    if is_told:
        done.told += [job for job in jobs if stored.get(job.id) or job.lane is not None]


def _are_wanted(means: Means, jobs: Sequence[NewJob]) -> bool:
    """True if workers should be told of these jobs now."""
    kinds = Counter((job.queue, job.task) for job in jobs if job.lane is None)
    return not means.making.book.rules().close_any(kinds) and means.hints.wants_all(kinds)


def tell(means: Means, done: Done) -> None:
    """Tells the workers of what a transaction has stored, once it is committed."""
    means.making.note(done.jobs)
    if hints := [job.hint for job in done.told if job.lane is None]:
        means.hints.put(hints)
    if tickets := [job.ticket for job in done.told if job.lane is not None]:
        means.hints.call(tickets)
    for one in done.followed:
        course.tell(one)
    if done.cancelled:
        metrics.jobs_cancelled.inc(done.cancelled)
    for status, number in done.steps.items():
        metrics.workflow_steps.labels(status.value).inc(number)
    if done.has_ended:
        metrics.workflows_ended.labels(done.status.value).inc()
