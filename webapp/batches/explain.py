"""Why a batch is not over, in one sentence and in a form for machines. Pure, but for the question who does what beat asks for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from webapp.batches.model import FINAL, BatchRow, Status
from webapp.infra.jsontext import iso

#: Members that have not ended are counted up to here.
COUNTED_UP_TO = 10_000


class Unfinished(NamedTuple):
    """Members that have not ended, and what is noted and not counted.

    Args:
        queued, processing: jobs that wait and that run, counted up to a bound.
        batches: batches that are members.
        notes: ends that are noted and not counted yet.
    """

    queued: int
    processing: int
    batches: int
    notes: int


class Explanation(NamedTuple):
    """Why a batch is not over."""

    state: str
    sentence: str
    facts: dict[str, Any]


def explain(batch: BatchRow, open_members: Unfinished, workers: Callable[[], int | None]) -> Explanation:
    """Why a batch is not over.

    Args:
        workers: how many live workers do what beat asks for; None when that is not known.
    """
    totals = batch.totals
    facts: dict[str, Any] = {
        "total": totals.total,
        "open": totals.open,
        **open_members._asdict(),
        "open_until": None if batch.deadline is None or batch.closed_at else iso(batch.deadline),
    }
    if batch.status in FINAL:
        return Explanation("final", _final(batch), facts)
    waits = _waits(open_members)
    if batch.cancel_requested_at is not None:
        return Explanation("cancelling", f"it is being cancelled: {waits}", facts)
    if totals.open:
        state = "open" if batch.status is Status.OPEN else "running"
        also = "it takes jobs until it is closed, and " if state == "open" else ""
        return Explanation(
            state, f"{also}{totals.open} of its {totals.total} members have not ended: {waits}", facts
        )
    if batch.status is Status.OPEN:
        until = "" if batch.deadline is None else f"; it closes itself at {iso(batch.deadline)}"
        return Explanation(
            "open", f"all of its {totals.total} members have ended, but it is not closed{until}", facts
        )
    if workers() == 0:
        facts["maintenance_workers"] = 0
        words = "all members have ended, and no maintenance worker is alive that would count it"
        return Explanation("not_counted", words, facts)
    return Explanation("counting", "all members have ended; that is counted within a second or so", facts)


def _final(batch: BatchRow) -> str:
    totals = batch.totals
    counts = f"{totals.completed} of {totals.total} members completed, {totals.failed} failed, {totals.cancelled} were cancelled"
    again = "; once failed ones are queued again it goes on" if totals.failed else ""
    return f"it is {batch.status.value}: {counts}{again}"


def _waits(members: Unfinished) -> str:
    parts = [
        f"{_counted(number)} {words}"
        for number, words in (
            (members.queued, "wait"),
            (members.processing, "run"),
            (members.batches, "are batches"),
        )
        if number
    ]
    return ", ".join(parts) or "their ends are being counted"


def _counted(number: int) -> str:
    return f"more than {COUNTED_UP_TO}" if number > COUNTED_UP_TO else str(number)
