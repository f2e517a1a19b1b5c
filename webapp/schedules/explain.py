"""Why a schedule does not fire now, in one sentence and in a form for machines. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from webapp.infra.jsontext import iso
from webapp.schedules.model import FiringRow, Outcome, Overlap, Schedule

#: Seconds by which a schedule is late before it is called overdue.
LATE = 10.0


@dataclass(frozen=True, slots=True)
class Situation:
    """What is known of a schedule.

    Args:
        now: PostgreSQL's clock.
        is_open: the job of its last firing has not ended.
        last: the newest line of its history.
        workers: live workers that do what beat asks for; None when Redis does not say.
    """

    schedule: Schedule
    now: datetime
    is_open: bool
    last: FiringRow | None
    workers: int | None


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a schedule does not fire now: a code that stays the same, a sentence, and the facts behind it."""

    state: str
    sentence: str
    facts: dict[str, Any] = field(default_factory=dict)


def explain(at: Situation) -> Explanation:
    """The first reason that holds, from what is certain to what is likely."""
    return _held(at) or _waits(at) or _goes_on(at)


def _held(at: Situation) -> Explanation | None:
    schedule = at.schedule
    if schedule.paused_at is not None:
        by = f" by {schedule.paused_by}" if schedule.paused_by else ""
        note = f": {schedule.pause_note}" if schedule.pause_note else ""
        since = iso(schedule.paused_at)
        told = {"paused_at": since, "paused_by": schedule.paused_by}
        return Explanation("paused", f"It is paused since {since}{by}{note}.", told)
    late = 0.0 if schedule.due_at is None else (at.now - schedule.due_at).total_seconds()
    if late > LATE:
        who = (
            "no worker of the maintenance queue lives, so nothing looks at it"
            if at.workers == 0
            else "many others are due as well, or what looks at schedules fails: see the log of the maintenance worker"
        )
        facts: dict[str, Any] = {"late_seconds": round(late, 1), "maintenance_workers": at.workers}
        return Explanation("overdue", f"It is due for {late:.0f} s: {who}.", facts)
    return None


def _waits(at: Situation) -> Explanation | None:
    schedule = at.schedule
    facts: dict[str, Any] = {"job_id": str(schedule.open_job_id) if schedule.open_job_id else None}
    if schedule.buffered:
        facts["buffered"] = schedule.buffered
        sentence = f"{schedule.buffered} of its times wait for the job of the one before to end."
        return Explanation("buffered", sentence, facts)
    if schedule.next_at is None:
        return Explanation("ended", "It has no time to come.", {"fired": schedule.fired})
    if at.is_open and schedule.spec.overlap is not Overlap.ALLOW_ALL:
        facts |= {"overlap": schedule.spec.overlap.value, "next_at": iso(schedule.next_at)}
        sentence = (
            f"The job of its last firing has not ended; should that be so at {iso(schedule.next_at)}, "
            f"overlap is {schedule.spec.overlap.value}."
        )
        return Explanation("blocked_by", sentence, facts)
    return None


def _goes_on(at: Situation) -> Explanation:
    schedule = at.schedule
    due_at = schedule.due_at or schedule.next_at
    facts: dict[str, Any] = {"next_at": schedule.next_at and iso(schedule.next_at)}
    if at.last is not None and at.last.outcome == Outcome.REFUSED:
        facts["reason"] = at.last.reason
        sentence = f"Its last time, {iso(at.last.at)}, was refused: {at.last.reason}."
        return Explanation("refused", sentence, facts)
    when = "now" if due_at is None else iso(due_at)
    return Explanation("waiting_until", f"It fires at {when}.", facts)
