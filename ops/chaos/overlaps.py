"""Two executions of a job at the same time, and the one excuse for it: the earlier one's process stood still. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ops.chaos.history import Stop

#: Share of a lease that is left at any moment at least: it is renewed three times, by looks that are apart and may be late.
LEFT_OF_LEASE = 0.5
#: Seconds in which a worker that goes on must have stopped what its lease does not cover any more.
AWAKE_WITHIN = 2.0


@dataclass(frozen=True, slots=True)
class Overlap:
    """One execution that began before an earlier one of its job had ended; moments are seconds since the epoch.

    Args:
        pid: the process of the earlier one.
        began: when the earlier one began.
        later_began: when the other one did.
    """

    job_id: str
    attempt: int
    later_attempt: int
    pid: int
    began: float
    later_began: float

    def __str__(self) -> str:
        return f"{self.job_id} {self.attempt} and {self.later_attempt}"


def is_excused(overlap: Overlap, stops: Iterable[Stop], lease: float) -> bool:
    """True if the earlier execution's process was stopped for so long that its lease ran out, and the other began by then.

    Args:
        stops: every process that the harness has stopped, and when.
        lease: seconds.

    Example:
        >>> overlap = Overlap("a job", 1, 2, pid=7, began=100.0, later_began=109.0)
        >>> is_excused(overlap, [Stop(7, 101.0, 113.0)], 6.0), is_excused(overlap, [Stop(8, 101.0, 113.0)], 6.0)
        (True, False)
    """
    return any(
        stop.pid == overlap.pid
        and max(stop.began, overlap.began) + lease * LEFT_OF_LEASE <= overlap.later_began
        and overlap.later_began <= stop.ended + AWAKE_WITHIN
        for stop in stops
    )
