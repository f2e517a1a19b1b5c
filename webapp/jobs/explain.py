"""Why a job is not running now, in one sentence and in a form for machines. The decision is pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from webapp.flow import store as flow_store
from webapp.flow.holds import Hold, hold_of, surroundings
from webapp.flow.model import Kind, Pause, Target, is_own
from webapp.flow.reach import Reach
from webapp.flow.reached import Reached, reach_values
from webapp.infra.jsontext import iso
from webapp.jobs.model import JobRow
from webapp.jobs.options import HIGHEST_PRIORITY
from webapp.jobs.states import FINAL, JobStatus

#: Up to here the jobs ahead are counted.
COUNTED_UP_TO = 10_000


@dataclass(frozen=True, slots=True)
class Situation:
    """What is known of a job and what is around it.

    Args:
        now: PostgreSQL's clock.
        cancel_asked: its running attempt was asked to stop.
        ahead: due jobs of its queue that come before it, counted to `COUNTED_UP_TO`.
        workers: live workers that listen to its queue; None when Redis does not say.
        recorded: the end of its running attempt is on record, so it was its last.
        pauses: those of its queue and its task.
        hold: what holds it in its lane; None when nothing does.
    """

    job: JobRow
    now: datetime
    cancel_asked: bool
    ahead: int
    workers: int | None
    recorded: bool = False
    pauses: Mapping[Target, Pause] = field(default_factory=dict)
    hold: Hold | None = None


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a job is not running now: a code that stays the same, a sentence, and the facts behind it."""

    state: str
    sentence: str
    facts: dict[str, Any] = field(default_factory=dict)


def explain(at: Situation) -> Explanation:
    """The first reason that holds, from what is certain to what is likely.

    Example:
        >>> explain(Situation(job, now, cancel_asked=False, ahead=0, workers=0)).state  # doctest: +SKIP
        'no_worker'
    """
    job = at.job
    if job.status in FINAL:
        return _final(job)
    if job.status == JobStatus.PROCESSING and at.recorded:
        return Explanation(
            "failing",
            f"attempt {job.attempt} failed and was the last; the job is on its way to the dead letter queue",
            {"attempt": job.attempt},
        )
    if job.status == JobStatus.PROCESSING:
        return _running(job, cancel_asked=at.cancel_asked)
    if job.expires_at is not None and job.attempt == 0 and job.expires_at <= at.now:
        moment = iso(job.expires_at)
        return Explanation(
            "expired", f"it was not started by {moment} and will be cancelled", {"expires_at": moment}
        )
    if job.run_at > at.now:
        return _waiting(job)
    return _due(at)


def _final(job: JobRow) -> Explanation:
    ended = iso(job.finished_at) if job.finished_at else None
    sentence = f"it is {job.status} since {ended}"
    facts = {"finished_at": ended}
    if job.status == JobStatus.CANCELLED and job.cancel_reason:
        sentence += f" ({job.cancel_reason})"
    if job.status == JobStatus.FAILED:
        facts["last_error"] = job.last_error
        sentence += f", after {job.attempt} attempt{'s' * (job.attempt != 1)}: {job.last_error}; a retry queues it again"
    return Explanation("final", sentence, facts)


def _running(job: JobRow, *, cancel_asked: bool) -> Explanation:
    until = iso(job.lease_expires_at) if job.lease_expires_at else None
    facts = {"worker_id": job.worker_id, "lease_expires_at": until, "attempt": job.attempt}
    if cancel_asked:
        return Explanation(
            "stopping", f"attempt {job.attempt} was asked to stop; worker {job.worker_id} holds it", facts
        )
    return Explanation(
        "running",
        f"attempt {job.attempt} is held by worker {job.worker_id} until {until}, and longer while it runs",
        facts,
    )


def _waiting(job: JobRow) -> Explanation:
    moment = iso(job.run_at)
    because = "the time it was submitted for"
    if job.attempt:
        because = f"its next try after attempt {job.attempt}"
    return Explanation(
        "waiting_until",
        f"it waits until {moment}, {because}",
        {"run_at": moment, "attempt": job.attempt, "retry_count": job.retry_count},
    )


def _paused(target: Target, pause: Pause) -> Explanation:
    since = iso(pause.at)
    by = f" by {pause.by}" if pause.by else ""
    why = f" ({pause.why})" if pause.why else ""
    return Explanation(
        "queue_paused" if target.kind is Kind.QUEUE else "task_paused",
        f"it is due, and {target.words} is paused since {since}{by}{why}",
        {"target": str(target), "paused_at": since, "paused_by": pause.by, "paused_why": pause.why},
    )


def _unheard(at: Situation, facts: dict[str, Any]) -> Explanation:
    if at.workers is None:
        return Explanation(
            "broker_away", "it is due, and Redis is not answering: it is sent when Redis is back", facts
        )
    return Explanation("no_worker", f"it is due, and no live worker listens to queue {at.job.queue!r}", facts)


def _due(at: Situation) -> Explanation:
    job = at.job
    for target, pause in at.pauses.items():
        return _paused(target, pause)
    facts: dict[str, Any] = {"queue": job.queue, "ahead": at.ahead, "workers": at.workers}
    if not at.workers:
        return _unheard(at, facts)
    if at.hold is not None:
        return Explanation(*at.hold)
    if at.ahead:
        count = f"more than {COUNTED_UP_TO:,}" if at.ahead > COUNTED_UP_TO else f"{at.ahead:,}"
        return Explanation(
            "behind_others",
            f"it is due behind {count} jobs of queue {job.queue!r}, which are run first",
            facts,
        )
    # One that was set aside while its task was paused, and comes back now, has no message.
    if job.dispatched_at is not None and job.dispatched_at <= at.now:
        sent = iso(job.dispatched_at)
        return Explanation(
            "sent",
            f"it was sent to the workers of queue {job.queue!r} at {sent} and is next",
            facts | {"dispatched_at": sent},
        )
    return Explanation("due", f"it is due and next in queue {job.queue!r}", facts)


_AROUND, _AROUND_OF_TENANT = (Reached(__file__, "around", name) for name in ("around", "around_of_tenant"))


def situation(connection: Connection, job: JobRow, workers: int | None, reach: Reach) -> Situation:
    """Reads what is around a job: of other queues no more than numbers, but where the caller reaches them; of other tenants nothing.

    Args:
        workers: live workers that listen to its queue; None when that is not known.
    """
    values = {
        "id": job.id,
        "attempt": job.attempt,
        "queue": job.queue,
        "priority": job.priority,
        "run_at": job.run_at,
        "highest": HIGHEST_PRIORITY,
        "most": COUNTED_UP_TO + 1,
    } | reach_values(reach)
    statement = _AROUND_OF_TENANT if reach.is_guest else _AROUND
    now, asked, recorded, ahead = connection.execute(statement.by(reach), values).one()
    pauses = {
        target: pause if is_own(target, reach) else pause.unsigned()
        for target, pause in flow_store.pauses_of(connection, job.queue, job.task).items()
    }
    around = surroundings(
        connection, job.id, reach, queue=job.queue, task=job.task, key=job.key, highest=HIGHEST_PRIORITY
    )
    hold = hold_of(around) if around is not None else None
    return Situation(job, now, bool(asked), ahead, workers, recorded, pauses, hold)
