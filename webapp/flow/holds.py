"""What holds a due job that lies in a lane: a pause of its key, a limit, a rate, the turns of other keys. The decision is pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection

from webapp.flow.limits import Rate
from webapp.flow.model import Pause
from webapp.flow.reach import Reach
from webapp.flow.reached import Reached, reach_values
from webapp.flow.tenant import mark_of
from webapp.infra.jsontext import iso

#: Up to here lanes and jobs that come before are counted.
COUNTED_UP_TO = 10_000
#: Most holders of slots that are named.
MOST_HOLDERS = 10

_AROUND = Reached(__file__, "holds", "around")
_HOLDERS = {
    of: Reached(__file__, "holds", name)
    for of, name in (
        ("queue", "holders_of_queue"),
        ("task", "holders_of_task"),
        ("key", "holders_of_key"),
    )
}


class Slots(NamedTuple):
    """A concurrency limit and how much of it is taken; None where there is no limit."""

    limit: int | None
    used: int | None

    @property
    def is_full(self) -> bool:
        """True if no process more may begin."""
        return self.limit is not None and (self.used or 0) >= self.limit


class Standing(NamedTuple):
    """A rate, and when the next start under it is due, seconds of the epoch; None where there is none."""

    rate: Rate | None
    next_start: float

    @property
    def opens_at(self) -> float:
        """When the next job may start, seconds of the epoch."""
        if self.rate is None:
            return 0.0
        return self.next_start + (1 - self.rate.burst) * self.rate.per / self.rate.limit


class Ahead(NamedTuple):
    """The job of a key in order that runs before every other one of it.

    Args:
        status: `processing` or `queued`.
        run_at: when it is due.
    """

    job_id: UUID
    status: str
    run_at: datetime


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What is around a due job of a queue or task that has limits.

    Args:
        queue, task, key: whose job it is; `key` is empty for one without.
        to_be_filed: it is not in its lane yet.
        slots, rates: of the queue, the task and the key, in this order.
        pause: that of its key.
        lanes_before: lanes whose turn comes before its own, counted to `COUNTED_UP_TO`.
        jobs_before: jobs of its lane before it, counted so as well.
        now: PostgreSQL's clock, seconds of the epoch.
        holders: process and job of those that hold a limit that is reached, by what is limited, as far as they may be named: of a
            task fewer than its slots that are taken, where some run jobs of queues that the caller does not reach.
        ahead: what must be final before it starts; None where its key has no order, or it comes first.
    """

    queue: str
    task: str
    key: str
    to_be_filed: bool
    slots: tuple[Slots, Slots, Slots]
    rates: tuple[Standing, Standing, Standing]
    pause: Pause | None
    lanes_before: int
    jobs_before: int
    now: float
    holders: Sequence[tuple[str, UUID]] = ()
    ahead: Ahead | None = None


class Hold(NamedTuple):
    """Why a job in a lane does not start: a code that stays the same, a sentence, and the facts behind it."""

    state: str
    sentence: str
    facts: dict[str, Any]


#: What has limits, in the order in which they are looked at.
LIMITED = ("queue", "task", "key")


def hold_of(at: Surroundings) -> Hold | None:
    """The first thing that holds a job, from what an operator did to whose turn it is; None when it is next.

    Example:
        >>> hold_of(at).state  # doctest: +SKIP
        'queue_limit'
    """
    return next(_holds(at), None)


def _holds(at: Surroundings) -> Iterator[Hold]:
    if at.to_be_filed:
        yield Hold(
            "filing",
            "it is due, and is filed under the limits of its queue or task, as all that waited before they came",
            {"queue": at.queue, "task": at.task},
        )
        return
    if at.pause is not None:
        yield _paused(at, at.pause)
    for of, slots in zip(LIMITED, at.slots, strict=True):
        if slots.is_full:
            yield _of_slots(at, of, slots)
    if at.ahead is not None:
        yield _in_order(at, at.ahead)
    for of, standing in zip(LIMITED, at.rates, strict=True):
        if standing.rate is not None and standing.opens_at > at.now:
            yield _of_rate(at, of, standing.rate, standing.opens_at)
    if at.lanes_before:
        yield Hold(
            "turn_of_others",
            f"it is due, and {_counted(at.lanes_before, 'other key')} of queue {at.queue!r} have their turn before its own",
            {"lanes_before": at.lanes_before, "jobs_before": at.jobs_before},
        )
    if at.jobs_before:
        yield Hold(
            "behind_others",
            f"it is due behind {_counted(at.jobs_before, 'job')} of {_words(at, 'key')}, which are run first",
            {"queue": at.queue, "ahead": at.jobs_before},
        )


def _paused(at: Surroundings, pause: Pause) -> Hold:
    since, by = iso(pause.at), f" by {pause.by}" if pause.by else ""
    why = f" ({pause.why})" if pause.why else ""
    return Hold(
        "key_paused",
        f"it is due, and {_words(at, 'key')} is paused since {since}{by}{why}",
        {"key": at.key, "paused_at": since, "paused_by": pause.by, "paused_why": pause.why},
    )


def _of_slots(at: Surroundings, of: str, slots: Slots) -> Hold:
    return Hold(
        f"{of}_limit",
        f"it is due, and {slots.used} of {slots.limit} slots of {_words(at, of)} are taken",
        {
            "limit": slots.limit,
            "used": slots.used,
            "held_by": [{"worker_id": worker, "job_id": str(job)} for worker, job in at.holders],
        },
    )


def _in_order(at: Surroundings, ahead: Ahead) -> Hold:
    facts = {"key": at.key, "job_id": str(ahead.job_id), "status": ahead.status}
    sentence = f"it is due, and job {ahead.job_id} of {_words(at, 'key')} comes first and is {ahead.status}"
    if ahead.status == "queued" and ahead.run_at.timestamp() > at.now:
        moment = iso(ahead.run_at)
        return Hold("in_order_behind", f"{sentence} until {moment}, its next try", facts | {"run_at": moment})
    return Hold("in_order_behind", sentence, facts)


def _of_rate(at: Surroundings, of: str, rate: Rate, opens_at: float) -> Hold:
    moment = iso(datetime.fromtimestamp(opens_at, UTC))
    return Hold(
        f"{of}_rate",
        f"it is due, and of {_words(at, of)} {rate.limit:,} jobs may start in {rate.per:g} s; the next one may at {moment}",
        rate.document() | {"next_start_at": moment},
    )


def _words(at: Surroundings, of: str) -> str:
    if of == "key":
        return f"key {at.key!r} of queue {at.queue!r}" if at.key else f"queue {at.queue!r} without a key"
    return f"{of} {(at.queue if of == 'queue' else at.task)!r}"


def _counted(count: int, noun: str) -> str:
    more = f"more than {COUNTED_UP_TO:,}" if count > COUNTED_UP_TO else f"{count:,}"
    return f"{more} {noun}{'s' * (count != 1)}"


def surroundings(
    connection: Connection,
    job_id: UUID,
    reach: Reach,
    *,
    queue: str,
    task: str,
    key: str | None,
    highest: int,
) -> Surroundings | None:
    """Reads what is around a queued job; None where nothing limits it.

    Args:
        reach: of the caller, who reaches the job: all else that is named is of its queue, but for a task's holders.
        queue, task, key: whose job it is.
        highest: the highest priority.
    """
    values = {"id": job_id, "most": COUNTED_UP_TO + 1, "highest": highest, "mark": mark_of(reach.home.id)}
    row = connection.execute(_AROUND.by(reach), values).first()
    if row is None or not (row[0] or row[1]):
        return None
    slots = Slots(row[2], row[3]), Slots(row[4], row[5]), Slots(row[6], row[7])
    rates = _standing(row[8:12]), _standing(row[12:16]), _standing(row[16:20])
    pause = None if row[20] is None else Pause(row[20], row[21], row[22])
    full = next((of for of, one in zip(LIMITED, slots, strict=True) if one.is_full), None)
    names = {"queue": queue, "task": task, "key": key or ""}
    holders = _holders(connection, full, names, reach) if full is not None else []
    return Surroundings(
        **names, to_be_filed=row[0], slots=slots, rates=rates, pause=pause, lanes_before=row[23],
        jobs_before=row[24] or 0, now=row[25], holders=holders,
        ahead=None if row[26] is None else Ahead(*row[26:29]),
    )  # fmt: skip


def _standing(columns: Sequence[Any]) -> Standing:
    limit, per, burst, next_start = columns
    return Standing(None if limit is None else Rate.of(limit, per, burst), next_start or 0.0)


def _holders(connection: Connection, of: str, names: dict[str, str], reach: Reach) -> list[tuple[str, UUID]]:
    values = {**names, "most": MOST_HOLDERS, "key": reach.kept(names["key"])} | reach_values(reach)
    rows = connection.execute(_HOLDERS[of].by(reach), values)
    return [(row[0], row[1]) for row in rows]
