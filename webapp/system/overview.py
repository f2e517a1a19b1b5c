"""How the installation does, in one look: what comes in and goes out, what waits, who works, what failed, and what needs attention.

A pure function says what needs attention; the look is bounded, however much there is of anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy import Connection, Engine

from webapp.dead_letters import tallies
from webapp.dead_letters.model import DeadLetterFilter, Group
from webapp.flow.model import FlowState
from webapp.flow.reach import EVERYTHING
from webapp.infra.broker import heartbeats
from webapp.infra.broker.heartbeats import Worker
from webapp.infra.postgres.engine import in_transaction
from webapp.jobs.history import moment
from webapp.queues import backlog
from webapp.queues.listing import QueueState, queue_states
from webapp.settings.sweeps import MAINTENANCE_QUEUE
from webapp.system import samples
from webapp.system.figures import COUNTERS, HISTOGRAMS

#: Over how long rates and distributions are taken, seconds.
RATE_OVER, DISTRIBUTION_OVER = 60, 900
#: Groups of dead letters that are shown.
MOST_GROUPS = 5
#: A job that is due for longer than this waits too long, and beat that ticks so rarely is not there, seconds.
LATE, SILENT = 30.0, 30.0


class Working(NamedTuple):
    """Who works, as far as Redis says.

    Args:
        workers: those that run jobs.
        children: processes that run jobs.
        busy: those that run one.
        listening: how many workers take messages of each queue.
        maintenance: workers that run sweeps.
        beat_age: seconds since beat ticked.
    """

    workers: int
    children: int
    busy: int
    listening: Mapping[str, int]
    maintenance: int
    beat_age: float


class Attention(NamedTuple):
    """Something that needs attention.

    Args:
        kind: what it is, in a word.
        sentence: and in a sentence.
        link: where one sees more.
    """

    kind: str
    sentence: str
    link: str


@dataclass(frozen=True, slots=True)
class Overview:
    """How the installation does.

    Args:
        at: when it was looked at.
        rates: how many a second within the last minute, by the name of their series.
        spreads: how values of a series were spread within the last quarter of an hour, as growths of buckets.
        queues: what waits in each; `estimated` says that there is more than is counted.
        working: who works; None while Redis is not answering.
        open_letters: how many dead letters are open.
        groups: the largest groups of them.
        paused_tasks: names of tasks that are paused.
    """

    at: datetime
    rates: Mapping[str, float]
    spreads: Mapping[str, Sequence[float]]
    queues: Sequence[QueueState]
    estimated: bool
    working: Working | None
    open_letters: int
    groups: Sequence[Group]
    paused_tasks: Sequence[str]

    @property
    def attention(self) -> list[Attention]:
        """What needs attention, the worst first."""
        return [*_of_servers(self), *_of_queues(self), *_of_letters(self)]


def _of_servers(seen: Overview) -> Iterator[Attention]:
    working = seen.working
    if working is None:
        yield Attention("redis_away", "Redis is not answering: jobs are taken, and wait", "/health/ready")
        return
    if working.beat_age > SILENT:
        yield Attention(
            "beat_silent", f"beat has not ticked for {working.beat_age:.0f} s: nothing is sent", "/system"
        )
    if not working.maintenance:
        yield Attention(
            "no_maintenance", "no worker runs the sweeps: nothing is sent or recovered", "/workers"
        )
    if not working.children:
        yield Attention("no_workers", "no worker runs jobs", "/workers")


def _of_queues(seen: Overview) -> Iterator[Attention]:
    for queue in seen.queues:
        name, depth, link = queue.flow.name, queue.depth, f"/queues/{queue.flow.name}"
        if queue.flow.pause is not None:
            yield Attention("queue_paused", f"the queue {name} is paused; due jobs: {depth.due}", link)
        elif depth.due and seen.working is not None and not seen.working.listening.get(name):
            yield Attention(
                "no_listener", f"no worker listens to the queue {name}; due jobs: {depth.due}", "/queues"
            )
        elif depth.due and depth.oldest > LATE:
            yield Attention("late", f"the oldest due job of {name} waits for {depth.oldest:.0f} s", link)
    for task in seen.paused_tasks:
        yield Attention("task_paused", f"the task {task} is paused", f"/tasks/{task}")


def _of_letters(seen: Overview) -> Iterator[Attention]:
    if seen.open_letters:
        yield Attention("dead_letters", f"open dead letters: {seen.open_letters}", "/dlq/groups")


def working_of(workers: Sequence[Worker], beat_age: float) -> Working:
    """Who works, by what workers say. Pure."""
    running = [one for one in workers if one.children and set(one.queues) - {MAINTENANCE_QUEUE}]
    listening: dict[str, int] = {}
    for worker in workers:
        for queue in set(worker.queues):
            listening[queue] = listening.get(queue, 0) + 1
    return Working(
        len(running),
        sum(one.children for one in running),
        sum(one.busy for one in running),
        listening,
        listening.get(MAINTENANCE_QUEUE, 0),
        beat_age,
    )


def working(redis: Redis) -> Working | None:
    """Who works; None while Redis is not answering."""
    try:
        return working_of(heartbeats.workers(redis), heartbeats.tick_age(redis))
    except RedisError:
        return None


def look(
    engine: Engine,
    redis: Redis,
    queues: Callable[[], Mapping[str, FlowState]],
    tasks: Callable[[], Mapping[str, FlowState]],
) -> Overview:
    """How the installation does now.

    Args:
        queues, tasks: give how all queues and all tasks stand.
    """
    flows, who = queues(), working(redis)
    paused = [name for name, state in tasks().items() if state.pause is not None]

    def read(connection: Connection) -> Overview:
        backlog.bound(connection)
        now = moment(connection)
        depths = backlog.depths(connection, EVERYTHING)
        rates, spreads = _figures(connection, now)
        everything = DeadLetterFilter()
        return Overview(
            now,
            rates,
            spreads,
            queue_states(flows, depths),
            depths.estimated,
            who,
            tallies.total(connection, everything),
            tallies.groups(connection, everything, limit=MOST_GROUPS),
            paused,
        )

    return in_transaction(engine, read)


def _figures(connection: Connection, now: datetime) -> tuple[dict[str, float], dict[str, list[float]]]:
    """Rates of the last whole minute of samples, and distributions of the last quarter of an hour."""
    until = now - timedelta(seconds=now.timestamp() % 10)
    rates, spreads = {}, {}
    for name in COUNTERS:
        found = samples.counts(connection, name, until - timedelta(seconds=RATE_OVER), until, RATE_OVER)
        rates[name] = round(sum(value for _, value in found) / RATE_OVER, 3)
    for name in HISTOGRAMS:
        since = now - timedelta(seconds=DISTRIBUTION_OVER)
        columns = samples.buckets(connection, name, since, now, DISTRIBUTION_OVER)
        spreads[name] = [sum(column) for column in zip(*(counts for _, counts in columns), strict=True)]
    return rates, spreads
