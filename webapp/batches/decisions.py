"""What follows when members of a batch have ended or it was closed: which of its jobs are made, whether it is over. Pure.

It is judged behind the lock of its row, after each count and after it was closed, so whichever comes last finds its end.
"""

from __future__ import annotations

from typing import NamedTuple

from webapp.batches.model import FINAL, Event, Status
from webapp.groups.model import Totals


class Standing(NamedTuple):
    """A batch that is locked.

    Args:
        totals: by its counters.
        is_closed: it takes no more members.
        is_cancelled: its cancellation was asked.
        has_notes: ends of members are noted that are not counted, or failed ones are being queued again; the session that counts them judges it again.
        wanted: the events whose jobs are asked for and were not made yet.
    """

    status: Status
    totals: Totals
    is_closed: bool
    is_cancelled: bool
    has_notes: bool
    wanted: frozenset[Event] = frozenset()

    @property
    def is_over(self) -> bool:
        """True if it is closed and all members have ended."""
        return self.is_closed and self.totals.open == 0


class Decision(NamedTuple):
    """What is to be done with a batch.

    Args:
        status: how it stands from now on.
        reopens: it was over, and is not any more; or is so in another way, which is told as a new end.
        ends: it is over from now on.
        events: whose jobs are made.
    """

    status: Status
    reopens: bool = False
    ends: bool = False
    events: tuple[Event, ...] = ()

    @property
    def is_nothing(self) -> bool:
        """True if all stays as it is."""
        return not (self.reopens or self.ends or self.events)


def status_at_end(totals: Totals, *, is_cancelled: bool) -> Status:
    """How a batch stands whose members have all ended.

    Example:
        >>> status_at_end(Totals(2, 1, 1, 0, 0), is_cancelled=False).value
        'failed'
    """
    if totals.are_all_completed:
        return Status.COMPLETED
    return Status.FAILED if totals.failed and not is_cancelled else Status.CANCELLED


def decide(standing: Standing) -> Decision:
    """What follows from how a batch stands.

    While ends are noted that are not counted it is not said whether it is over: a member may have been queued again.
    """
    before, totals = standing.status, standing.totals
    events = [Event.FAILURE] if totals.failed and Event.FAILURE in standing.wanted else []
    if standing.has_notes:
        return Decision(before, events=tuple(events))
    if not standing.is_over:
        was_over = before in FINAL
        return Decision(Status.CLOSED if was_over else before, reopens=was_over, events=tuple(events))
    after = status_at_end(totals, is_cancelled=standing.is_cancelled)
    if Event.COMPLETE in standing.wanted:
        events.append(Event.COMPLETE)
    if totals.are_all_completed and Event.SUCCESS in standing.wanted:
        events.append(Event.SUCCESS)
    return Decision(
        after,
        reopens=before in FINAL and before is not after,
        ends=before is not after,
        events=tuple(events),
    )
