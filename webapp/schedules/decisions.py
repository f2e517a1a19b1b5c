"""What becomes of the times of a schedule when it is looked at: which fire, which wait, which are passed over, and which is next. Pure.

The next time follows from the last nominal time, and never from a clock that was late. What was missed is found by walking back from
now, so years of it cost no more than what is caught up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from webapp.schedules.model import MOST_AT_ONCE, STOPPING, CatchUp, Firing, Kind, Outcome, Overlap, Spec
from webapp.schedules.timetable import backwards, next_after

STILL_OPEN = "the job of the time before has not ended"
ONE_WAITS = "one waits for its turn already"
MANY_WAIT = "as many wait for their turn as buffer_limit lets"
NEWER = "a newer time took its place"
TOO_LATE = {
    CatchUp.SKIP: "too late, and catch_up is skip",
    CatchUp.LAST: "too late, and catch_up is last: only the newest of what was missed fires",
    CatchUp.ALL: "too late, and beyond catch_up_limit or catch_up_window",
}
AT_ONCE = f"more than {MOST_AT_ONCE} times were due at once"


@dataclass(frozen=True, slots=True)
class Standing:
    """How a schedule stands when it is looked at.

    Args:
        next_at: the first time that was not dealt with.
        fired: how often it has fired.
        is_open: the job of its last firing has not ended.
        buffered: how many times wait for their turn.
    """

    next_at: datetime
    fired: int = 0
    is_open: bool = False
    buffered: int = 0


@dataclass(frozen=True, slots=True)
class Decision:
    """What is done.

    Args:
        firings: what becomes of each time, the oldest first.
        newest: the newest time that is dealt with.
        next_at: the time after it; None: there is none.
        stops: the job of the last firing is to be ended.
        drops: what waited until now is passed over.
    """

    firings: tuple[Firing, ...]
    newest: datetime
    next_at: datetime | None
    stops: bool = False
    drops: bool = False


@dataclass(frozen=True, slots=True)
class _Due:
    """The times that are due.

    Args:
        times: those that are to fire, each with why, the oldest first.
        missed: those that are not.
    """

    times: list[tuple[datetime, Kind]]
    newest: datetime
    missed: Firing | None


def decide(spec: Spec, standing: Standing, now: datetime) -> Decision | None:
    """What becomes of the times that are due; None: none is.

    Args:
        now: PostgreSQL's clock, less what the schedule's jitter puts its times off.
    """
    due = _due(spec, standing.next_at, now)
    if due is None:
        return None
    placed, drops, stops = _placed(spec, due.times, standing)
    placed, is_spent = _counted(spec, placed, standing)
    noted = [due.missed] if due.missed is not None else []
    following = None if is_spent else next_after(spec.timing, due.newest)
    return Decision((*noted, *placed), due.newest, following, stops=stops, drops=drops)


def decide_now(spec: Spec, standing: Standing, at: datetime) -> Decision:
    """What becomes of a run that someone asks for, which is no time of the schedule."""
    firings, drops, stops = _placed(spec, [(at, Kind.MANUAL)], standing)
    return Decision(tuple(firings), at, standing.next_at, stops=stops, drops=drops)


def _due(spec: Spec, next_at: datetime, now: datetime) -> _Due | None:
    walk = backwards(spec.timing, now)

    def step() -> datetime | None:
        found = next(walk, None)
        return found if found is not None and found >= next_at else None

    at = newest = step()
    if newest is None:
        return None
    times: list[tuple[datetime, Kind]] = []
    while at is not None and at > now - timedelta(seconds=spec.grace) and len(times) < MOST_AT_ONCE:
        times.append((at, Kind.SCHEDULED))
        at = step()
    room, oldest = _room(spec, now)
    while at is not None and room > 0 and at >= oldest:
        times.append((at, Kind.CAUGHT_UP))
        at, room = step(), room - 1
    return _Due(times[::-1], newest, None if at is None else _missed(spec, next_at, at, now))


def _room(spec: Spec, now: datetime) -> tuple[int, datetime]:
    """How many missed times are caught up, and how old they may be."""
    beginning = datetime.min.replace(tzinfo=now.tzinfo)
    if spec.catch_up is CatchUp.ALL:
        return spec.catch_up_limit, now - timedelta(seconds=spec.catch_up_window)
    return (1 if spec.catch_up is CatchUp.LAST else 0), beginning


def _missed(spec: Spec, first: datetime, last: datetime, now: datetime) -> Firing:
    is_late = last <= now - timedelta(seconds=spec.grace)
    return Firing(
        first, Kind.SCHEDULED, Outcome.MISSED, TOO_LATE[spec.catch_up] if is_late else AT_ONCE, last
    )


def _placed(
    spec: Spec, times: Sequence[tuple[datetime, Kind]], standing: Standing
) -> tuple[list[Firing], bool, bool]:
    """What becomes of each time; whether what waited is passed over, and whether the job that runs is ended."""
    if spec.overlap in STOPPING:
        return _newest_placed(times, standing)
    placed: list[Firing] = []
    is_open, waiting = standing.is_open, standing.buffered
    for at, kind in times:
        firing = _one_placed(spec, at, kind, is_open=is_open, waiting=waiting)
        is_open = is_open or firing.outcome is Outcome.FIRED
        waiting += firing.outcome is Outcome.BUFFERED
        placed.append(firing)
    return placed, False, False


def _one_placed(spec: Spec, at: datetime, kind: Kind, *, is_open: bool, waiting: int) -> Firing:
    if spec.overlap is Overlap.ALLOW_ALL or not (is_open or waiting):
        return Firing(at, kind, Outcome.FIRED)
    if kind is Kind.CAUGHT_UP and spec.catch_up is CatchUp.ALL and waiting < MOST_AT_ONCE:
        # Each of them was asked for, so they take turns.
        return Firing(at, kind, Outcome.BUFFERED, STILL_OPEN)
    room = {Overlap.BUFFER_ONE: 1, Overlap.BUFFER_ALL: spec.buffer_limit}.get(spec.overlap, 0)
    if waiting < room:
        return Firing(at, kind, Outcome.BUFFERED, STILL_OPEN)
    full = {Overlap.BUFFER_ONE: ONE_WAITS, Overlap.BUFFER_ALL: MANY_WAIT}.get(spec.overlap, STILL_OPEN)
    return Firing(at, kind, Outcome.SKIPPED, full)


def _newest_placed(
    times: Sequence[tuple[datetime, Kind]], standing: Standing
) -> tuple[list[Firing], bool, bool]:
    """The same where the newest time takes the place of all before it."""
    placed = [Firing(at, kind, Outcome.SKIPPED, NEWER) for at, kind in times[:-1]]
    if not times:
        return placed, False, False
    at, kind = times[-1]
    if standing.is_open:
        placed.append(Firing(at, kind, Outcome.BUFFERED, STILL_OPEN))
    else:
        placed.append(Firing(at, kind, Outcome.FIRED))
    return placed, bool(standing.buffered), standing.is_open


def _counted(spec: Spec, placed: list[Firing], standing: Standing) -> tuple[list[Firing], bool]:
    """Those up to `max_firings`, and whether these were the last."""
    if spec.max_firings is None:
        return placed, False
    left = spec.max_firings - standing.fired - standing.buffered
    kept: list[Firing] = []
    for one in placed:
        if left <= 0:
            break
        left -= one.outcome in {Outcome.FIRED, Outcome.BUFFERED}
        kept.append(one)
    return kept, left <= 0
