"""Limits as values: how many jobs may run at once, and how often they may start, of a queue, a task or each key. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from webapp.flow.admission import NO_BOUNDS, Bounds

#: Most jobs that may run at once, of those that have a limit.
MOST_CONCURRENCY = 10_000
#: Least and greatest share of the turns that a key may have, where another has 1.
LEAST_WEIGHT, MOST_WEIGHT = 0.01, 100.0
#: Most starts in a period, and the period's bounds in seconds.
MOST_STARTS = 1_000_000
LEAST_PERIOD, MOST_PERIOD = 0.1, 30 * 86_400.0
#: A burst that is not given is this part of the limit: starts that come a little late are not lost.
BURST_PART = 40
#: What a step of priority may be worth, seconds.
LEAST_AGEING, MOST_AGEING = 0.1, 30 * 86_400.0


class KeyOrder(StrEnum):
    """In which order the jobs of a key run, where that is more than which of them starts first."""

    #: One after the other as they were submitted: none starts before the one before it is final.
    FIFO = "fifo"


@dataclass(frozen=True, slots=True)
class Rate:
    """How often jobs may start.

    Args:
        limit: starts in a period.
        per: the period, seconds.
        burst: starts that may come at once after a pause.
    """

    limit: int
    per: float
    burst: int

    @classmethod
    def of(cls, limit: int, per: float, burst: int | None) -> Rate:
        """A rate; where no burst is given it is a fortieth of the limit.

        Example:
            >>> Rate.of(100, 60.0, None).burst
            2
        """
        return cls(limit, per, max(1, limit // BURST_PART) if burst is None else burst)

    def document(self) -> dict[str, Any]:
        """As clients see it."""
        return {"limit": self.limit, "per": self.per, "burst": self.burst}


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of a queue, of a task, or of each key of a queue; None: there is none.

    Args:
        concurrency: jobs that may run at once.
        rate: how often they may start.
    """

    concurrency: int | None = None
    rate: Rate | None = None

    def document(self) -> dict[str, Any]:
        """As clients see it."""
        return {"concurrency": self.concurrency, "rate": self.rate.document() if self.rate else None}


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """What a queue is limited to, and each of its keys; of a task only the first.

    Args:
        fair: its keys take turns though nothing is limited.
        key_order: in which order the jobs of a key run; None: by priority, then by when they are due.
        ageing: seconds of waiting that a step of priority is worth; None: the greater priority is first, however long others wait.
        bounds: up to where it takes submissions; no job waits for their sake, and none of its jobs lies in a lane for it.
    """

    all: Limits = Limits()
    keys: Limits = Limits()
    fair: bool = False
    key_order: KeyOrder | None = None
    ageing: float | None = None
    bounds: Bounds = NO_BOUNDS

    @property
    def is_none(self) -> bool:
        """True where all is as by default."""
        return self == QueueLimits()

    @property
    def hold_jobs(self) -> bool:
        """True if jobs wait for their sake.

        Example:
            >>> QueueLimits(Limits(4)).hold_jobs, QueueLimits(bounds=Bounds(max_depth=9)).hold_jobs
            (True, False)
        """
        return replace(self, bounds=NO_BOUNDS) != QueueLimits()

    def document(self) -> dict[str, Any]:
        """As clients see it."""
        keys = self.keys.document() | {"order": self.key_order, "max_depth": self.bounds.key_max_depth}
        of_all = {"keys": keys, "fair": self.fair, "ageing": self.ageing}
        return self.all.document() | of_all | self.bounds.document()


#: Nothing is limited.
NO_LIMITS = QueueLimits()
