"""How a schedule goes on: from a change, from a pause, and in the times to come. Pure."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from webapp.schedules.listing import Times
from webapp.schedules.model import Spec, shift_by
from webapp.schedules.store import Taken
from webapp.schedules.timetable import backwards, next_after, upcoming


def times_to_come(found: Taken, count: int) -> list[datetime]:
    """The next so many times of a schedule, from the one that is due on."""
    schedule = found.schedule
    if schedule.next_at is None:
        return []
    spec = schedule.spec
    if spec.max_firings is not None:
        count = min(count, max(0, spec.max_firings - schedule.fired - schedule.buffered))
    if schedule.paused_at is not None:
        return upcoming(spec.timing, max(found.now, schedule.last_at or found.now), count)
    return [schedule.next_at, *upcoming(spec.timing, schedule.next_at, count - 1)][:count]


def first_times(schedule_id: UUID, spec: Spec, after: datetime, *, fired: int) -> Times:
    """The first time after a moment."""
    if spec.max_firings is not None and fired >= spec.max_firings:
        return Times(None, None)
    next_at = next_after(spec.timing, after)
    return Times(next_at, None if next_at is None else next_at + shift_by(schedule_id, spec))


def is_due(found: Taken) -> bool:
    """True if a schedule is due."""
    return found.schedule.due_at is not None and found.schedule.due_at <= found.now


def newest_passed(found: Taken) -> datetime | None:
    """The newest time that came while a schedule was paused; None: none did."""
    schedule = found.schedule
    if schedule.next_at is None:
        return None
    newest = next(backwards(schedule.spec.timing, found.now), None)
    return newest if newest is not None and newest >= schedule.next_at else None
