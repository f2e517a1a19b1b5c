"""Admission: whether a submission finds room in its queue, and if not, when it would. Pure.

A queue is looked at about once a second; what stands here is decided from the last look and from what was submitted since.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

#: Most jobs that a queue may be bounded to: each look counts as far.
MOST_DEPTH = 250_000
#: Most jobs that each key may be bounded to: each submission counts as far.
MOST_KEY_DEPTH = 10_000
#: Least and greatest bound of how long the oldest due job may have waited, seconds.
LEAST_AGE, MOST_AGE = 1.0, 30 * 86_400.0
#: How long the oldest due job must have been older than its bound before submissions are refused, seconds.
PERSISTENCE = 5.0
#: They are taken again when it is younger than this part of the bound.
CLEARS_AT = 0.5
#: Looks no further apart than this tell what was between them, seconds.
CONTINUOUS = 3.0
#: Least and greatest time after which a client is told to come again, seconds.
SOONEST, LATEST = 1, 300
#: How long ends of jobs are counted to tell how quickly a queue drains, seconds: the longer time where the shorter one has few.
RECENT, LONG_AGO = 30.0, 300.0
#: The shortest time in which they are counted, seconds.
SHORTEST = 1.0
#: Fewer ends than this tell too little.
FEWEST_ENDS = 20
#: Jobs beyond the bound that are counted: where it is not known how quickly the queue drains, and at most.
COUNTED_BEYOND, MOST_BEYOND = 10_000, 100_000


@dataclass(frozen=True, slots=True)
class Bounds:
    """Up to where a queue takes submissions; None: there is no bound.

    Args:
        max_depth: jobs of the queue that are queued.
        max_age: seconds that the oldest due job has waited.
        key_max_depth: queued jobs of each key.
    """

    max_depth: int | None = None
    max_age: float | None = None
    key_max_depth: int | None = None

    @property
    def is_none(self) -> bool:
        """True where every submission is taken."""
        return self == Bounds()

    @property
    def needs_looks(self) -> bool:
        """True if the queue must be looked at."""
        return self.max_depth is not None or self.max_age is not None

    def reaches(self, depth: int, part: float = 1.0) -> bool:
        """True if so many jobs are this part of `max_depth`, or more.

        Example:
            >>> Bounds(max_depth=10).reaches(5), Bounds(max_depth=10).reaches(5, 0.5), Bounds().reaches(5)
            (False, True, False)
        """
        return self.max_depth is not None and depth >= self.max_depth * part

    def document(self) -> dict[str, Any]:
        """Those of the queue, as clients see them."""
        return {"max_depth": self.max_depth, "max_age": self.max_age}


#: Every submission is taken.
NO_BOUNDS = Bounds()


class Refusal(NamedTuple):
    """Why a submission is refused: the bound that is reached, its value, and seconds until a submission would be taken."""

    bound: str
    value: float
    retry_after: int


class Age(NamedTuple):
    """What is remembered of the age of a queue's oldest due job.

    Args:
        old_since: since when it has been older than the bound, seconds of the epoch; None: it is not.
        refuses: submissions are refused for it.
    """

    old_since: float | None = None
    refuses: bool = False


#: It was never older than the bound.
YOUNG = Age()


class Ends(NamedTuple):
    """How many jobs ended in a time, which is as many as left the queue for good.

    Args:
        recent, long_ago: in the last `RECENT` and `LONG_AGO` seconds, or since the oldest due job waits if that is less.
        covered: seconds that were looked at, where there were too many ends to look at all; None: all of them were.
    """

    recent: int
    long_ago: int
    covered: float | None = None


@dataclass(frozen=True, slots=True)
class Look:
    """What was found when a queue was looked at.

    Args:
        at: when, seconds of the epoch by PostgreSQL's clock.
        took: how long that took, seconds.
        depth: queued jobs, counted to a bound.
        oldest: how long the oldest due job has waited, seconds; 0 where none is due.
        age: what is remembered of that.
        full_since: since when submissions are refused, seconds of the epoch; None: they are taken.
        drain: jobs that leave in a second; 0 where that is not known.
        surplus: jobs that must leave until the oldest due job is young enough.
    """

    at: float
    took: float = 0.0
    depth: int = 0
    oldest: float = 0.0
    age: Age = YOUNG
    full_since: float | None = None
    drain: float = 0.0
    surplus: int = 0


def next_age(before: Age, oldest: float, max_age: float | None, *, now: float, gap: float) -> Age:
    """What is remembered of the age of the oldest due job after a look. Submissions are refused once it was too old for
    `PERSISTENCE` seconds, until it is younger than half of the bound.

    Args:
        before: what was remembered.
        oldest: its age, seconds.
        max_age: the bound, seconds.
        now: seconds of the epoch.
        gap: seconds since the look before; what was between is not known where they are many.

    Example:
        >>> next_age(Age(), 66.0, 60.0, now=100.0, gap=1.0)
        Age(old_since=94.0, refuses=True)
    """
    if max_age is None or oldest < max_age * CLEARS_AT:
        return YOUNG
    if oldest <= max_age:
        return Age(None, before.refuses)
    # The job itself tells: so long it has been older than the bound.
    since = now - (oldest - max_age)
    if before.old_since is not None and gap <= CONTINUOUS:
        since = min(since, before.old_since)
    return Age(since, before.refuses or now - since >= PERSISTENCE)


def counted_up_to(max_depth: int, drain: float) -> int:
    """How far the jobs of a queue are counted: what is beyond takes longer than the longest `Retry-After`, or too long to be counted.

    Example:
        >>> counted_up_to(1_000, 0.0), counted_up_to(1_000, 100.0)
        (11000, 31000)
    """
    return max_depth + min(MOST_BEYOND, max(COUNTED_BEYOND, math.ceil(drain * LATEST)))


def windows(oldest: float) -> tuple[float, float]:
    """The times in which ends are counted, seconds: not from before the oldest due job waited, when the queue may have been empty.

    Example:
        >>> windows(0.2), windows(12.0), windows(4_000.0)
        ((1.0, 1.0), (12.0, 12.0), (30.0, 300.0))
    """
    since = max(SHORTEST, oldest)
    return min(RECENT, since), min(LONG_AGO, since)


def drain_of(ends: Ends, oldest: float) -> float:
    """Jobs that leave in a second, 0 where that is not known.

    Example:
        >>> drain_of(Ends(60, 100), oldest=40.0), drain_of(Ends(3, 20), oldest=40.0)
        (2.0, 0.5)
    """
    recent, long_ago = (
        window if ends.covered is None else max(min(window, ends.covered), 0.001)
        for window in windows(oldest)
    )
    return ends.recent / recent if ends.recent >= FEWEST_ENDS else ends.long_ago / long_ago


def seconds_until(surplus: float, drain: float, stands_for: float) -> int:
    """Seconds until so many jobs have left, in whole ones from `SOONEST` to `LATEST`.

    Where nothing leaves, because the queue is paused or nothing of it has run yet, no one knows: then it is as long again as
    it stands already, so that clients come seldom to what stands for long, and soon to what has just begun.

    Args:
        surplus: how many.
        drain: how many leave in a second; 0: that is not known.
        stands_for: how long nothing has come of it, seconds.

    Example:
        >>> seconds_until(41, 2.0, 0.0), seconds_until(41, 0.0, 90.0), seconds_until(1, 500.0, 0.0)
        (21, 90, 1)
    """
    seconds = surplus / drain if drain > 0 else stands_for
    return max(SOONEST, min(LATEST, math.ceil(round(seconds, 3))))


@dataclass(frozen=True, slots=True)
class Standing:
    """How a queue stands for a submission.

    Args:
        bounds: those of the queue.
        look: the last one; None where there was none, or is none to be had.
        age: seconds since it.
        created: jobs that this process has stored since it.
    """

    bounds: Bounds
    look: Look | None = None
    age: float = 0.0
    created: int = 0

    @property
    def room(self) -> int | None:
        """Jobs that are taken; None: any number."""
        if self.look is None:
            return None
        if self.look.age.refuses and self.bounds.max_age is not None:
            return 0
        if self.bounds.max_depth is None:
            return None
        return max(0, self.bounds.max_depth - self.look.depth - self.created)

    @property
    def is_estimate(self) -> bool:
        """True if the look itself found room, and what was stored since took it."""
        return self.look is not None and self.look.full_since is None and self.room == 0

    def refusal(self, more: int = 0) -> Refusal:
        """Why a submission is refused, where there is no room.

        Args:
            more: jobs that are about to be stored before it.
        """
        look, bounds = self.look or Look(0.0), self.bounds
        stood = 0.0
        if look.full_since is not None:
            stood = max(look.oldest, look.at - look.full_since) + self.age
        left = look.drain * self.age
        found: list[Refusal] = []
        if bounds.max_depth is not None:
            surplus = look.depth + self.created + more + 1 - bounds.max_depth
            if surplus > 0:
                wait = seconds_until(max(0.0, surplus - left), look.drain, stood)
                found.append(Refusal("max_depth", bounds.max_depth, wait))
        if bounds.max_age is not None and look.age.refuses:
            wait = seconds_until(max(0.0, look.surplus - left), look.drain, stood)
            found.append(Refusal("max_age", bounds.max_age, wait))
        return max(found, key=lambda one: one.retry_after)
