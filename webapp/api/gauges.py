"""What is true right now, read from PostgreSQL and Redis at each scrape.

A gauge whose source is away is left out, not zero; that it is away is a gauge of its own (`database_up`,
`redis_up`). One whose question took too long shows what the scrape before found, and `database_gauges_kept` says so.
A scrape takes at most a few seconds whatever is broken.
"""

from __future__ import annotations

import logging
import platform
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from redis.exceptions import RedisError
from sqlalchemy import Connection, text
from sqlalchemy.exc import SQLAlchemyError

from webapp import VERSION
from webapp.access.queued import of_each
from webapp.audit import seal_store
from webapp.flow import lanes
from webapp.flow import store as flow_store
from webapp.flow.reach import EVERYTHING
from webapp.groups import store as group_store
from webapp.infra.broker import heartbeats
from webapp.infra.broker.room import waiting_in
from webapp.infra.postgres import deadlines
from webapp.infra.postgres.engine import connections, most_connections
from webapp.infra.telemetry.metrics import OTHER, queue_label, task_label
from webapp.jobs import history
from webapp.jobs.handlers import MAINTENANCE_QUEUE, registry
from webapp.queues import backlog
from webapp.queues.plan import LOOKED_AT
from webapp.schedules import store as schedule_store
from webapp.schedules.explain import LATE
from webapp.workflows import store as workflow_store

if TYPE_CHECKING:
    from redis import Redis
    from sqlalchemy import Engine

    from webapp.infra.postgres.replica import Look, ReadReplica

logger = logging.getLogger(__name__)

#: How long Redis may take to answer one question of a scrape, seconds.
SCRAPE_TIMEOUT = 0.5
#: How long PostgreSQL may take to say that it is there, and to answer one question (its own limit is shorter), seconds.
ANSWER_TIMEOUT, QUESTION_TIMEOUT = 0.6, 1.2

#: Most limited queues of which a scrape asks what may start.
MOST_LIMITED = 100

#: Most tenants of which a scrape tells, and how far their jobs are counted.
MOST_TENANTS, MOST_OF_TENANT = 200, 20_000

#: Every gauge: what it tells, and its labels.
GAUGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "job_queue_depth": ("Unfinished jobs.", ("queue", "status")),
    "job_oldest_due_age_seconds": ("Age of the oldest due job.", ("queue",)),
    "job_due": ("Jobs that are due and not started.", ("queue",)),
    "queue_paused": ("1 while the queue is paused.", ("queue",)),
    "task_paused": ("1 while the task is paused.", ("task",)),
    "queue_slots": ("Slots of a queue with a concurrency limit: limit, and used.", ("queue", "kind")),
    "task_slots": ("Slots of a task with a concurrency limit: limit, and used.", ("task", "kind")),
    "queue_startable": (
        "Due jobs of a limited queue that its limits let start now, counted to 200 of each of 16 lanes.",
        ("queue",),
    ),
    "djps_tenant_jobs": (
        "Unfinished jobs of a tenant beside the default one, counted to 20,000; of the first 200 tenants.",
        ("tenant", "status"),
    ),
    "dead_letters_open": ("Dead letters that no one has dealt with.", ("task",)),
    "job_counts_estimated": (
        "1 when there are more of something than are counted, and its number is an estimate.",
        (),
    ),
    "database_up": ("1 when PostgreSQL answered this scrape.", ()),
    "database_gauges_kept": (
        "1 when a gauge shows what an earlier scrape found, since PostgreSQL took too long over it.",
        (),
    ),
    "database_connections": ("Connections of our processes to PostgreSQL.", ("role", "state")),
    "database_connections_max": ("Connections that PostgreSQL takes in all.", ()),
    "read_replica_usable": (
        "1 when the read replica answered this scrape and is no further behind than READ_STALENESS.",
        (),
    ),
    "read_replica_lag_seconds": ("How far the read replica is behind at most.", ()),
    "history_days_ahead": ("Days from tomorrow on for which history has a partition.", ()),
    "audit_unsealed_age_seconds": (
        "Age of the act on record that waits longest for its seal; 0 when none waits.",
        (),
    ),
    "djps_schedules_overdue": (
        "Schedules that are due for more than 10 s and have not fired, counted to 10,000.",
        (),
    ),
    "djps_group_ends_age_seconds": (
        "Age of the oldest end of a member of a batch or workflow that is not counted yet; 0 when none waits.",
        (),
    ),
    "djps_workflows_overdue": (
        "Workflows that were not moved on for more than 10 s although an end of theirs is noted, counted to 1,000.",
        (),
    ),
    "redis_up": ("1 when Redis answered this scrape.", ()),
    "redis_memory_used_bytes": ("Memory that Redis uses.", ()),
    "redis_memory_max_bytes": ("Memory that Redis may use; its host's where no limit is set.", ()),
    "broker_messages": ("Messages that wait in Redis.", ("queue",)),
    "active_workers": ("Workers whose heartbeat has not run out.", ()),
    "queue_workers": (
        "Live workers that take messages of the queue; `other`: the fewest of a queue with due jobs that no handler here names.",
        ("queue",),
    ),
    "worker_up": ("Live workers of this name.", ("worker",)),
    "worker_children": ("Its processes that run jobs.", ("worker",)),
    "worker_busy_children": ("Those of them that are running one.", ("worker",)),
    "worker_last_claim_age_seconds": ("Since it last took a message.", ("worker",)),
    "beat_last_tick_age_seconds": ("Since beat last ticked; an hour when that is not known.", ()),
    "djps_auth_open": (
        "1 where no key is asked for and the API is not on loopback: all who reach it may do everything.",
        (),
    ),
    "djps_build_info": ("1, with what runs as labels.", ("version", "python")),
}


def _gauge(name: str) -> GaugeMetricFamily:
    words, labels = GAUGES[name]
    return GaugeMetricFamily(name, words, labels=list(labels))


def _single(name: str, value: float) -> GaugeMetricFamily:
    family = _gauge(name)
    family.add_metric([], value)
    return family


def _say(source: str, error: Exception) -> None:
    logger.warning("gauges could not be read", extra={"source": source, "error_type": type(error).__name__})


@dataclass(frozen=True, slots=True)
class Found:
    """What PostgreSQL answered to one question.

    Args:
        families: the gauges.
        estimated: there is more of something than is counted.
        nameless: queues with due jobs that have no label of their own.
    """

    families: tuple[GaugeMetricFamily, ...]
    estimated: bool = False
    nameless: frozenset[str] = frozenset()


def _depths(connection: Connection) -> Found:
    found = backlog.depths(connection, EVERYTHING)
    queues = {*map(queue_label, (*registry.queues(), *found.queues, *found.processing))}
    depth = Counter({(queue, status): 0 for queue in queues for status in ("queued", "processing")})
    due, oldest = Counter({(queue,): 0 for queue in queues}), {(queue,): 0.0 for queue in queues}
    for queue, one in found.queues.items():
        label = queue_label(queue)
        depth[label, "queued"] += one.queued
        due[label,] += one.due
        oldest[label,] = max(one.oldest, oldest[label,])
    for queue, number in found.processing.items():
        depth[queue_label(queue), "processing"] += number
    families = (
        _each("job_queue_depth", depth),
        _each("job_due", due),
        _each("job_oldest_due_age_seconds", oldest),
    )
    nameless = frozenset(name for name, one in found.queues.items() if one.due and queue_label(name) == OTHER)
    return Found(families, found.estimated, nameless)


def _pauses(connection: Connection) -> Found:
    rules = flow_store.rules(connection)
    queues = {(queue_label(name),): 0.0 for name in (*registry.queues(), *rules.closed_queues)}
    tasks = {(task_label(name),): 0.0 for name in (*registry.names(), *rules.closed_tasks)}
    queues |= {(queue_label(name),): 1.0 for name in rules.closed_queues}
    tasks |= {(task_label(name),): 1.0 for name in rules.closed_tasks}
    return Found((_each("queue_paused", queues), _each("task_paused", tasks)))


def _limits(connection: Connection) -> Found:
    """Nothing but the rules is asked for where nothing has limits."""
    rules = flow_store.rules(connection)
    if not (rules.limited_queues or rules.limited_tasks):
        return Found(())
    limited = sorted(rules.limited_queues or registry.queues())
    startable = Counter({(queue_label(name),): 0 for name in limited})
    for name in limited[:MOST_LIMITED]:
        startable[queue_label(name),] += lanes.startable(lanes.look(connection, name, LOOKED_AT))
    used: dict[str, dict[tuple[str, ...], float]] = {"queue": {}, "task": {}}
    for one in lanes.slots(connection):
        label = queue_label(one.name) if one.kind == "queue" else task_label(one.name)
        used[one.kind] |= {(label, "limit"): one.limit, (label, "used"): one.used}
    families = (_each(f"{kind}_slots", figures) for kind, figures in used.items())
    return Found((*families, _each("queue_startable", startable)))


def _tenants(connection: Connection) -> Found:
    found = of_each(connection, tenants=MOST_TENANTS, most=MOST_OF_TENANT)
    jobs = {(slug, "queued"): waiting for slug, (waiting, _) in found.items()}
    jobs |= {(slug, "processing"): running for slug, (_, running) in found.items()}
    return Found((_each("djps_tenant_jobs", jobs),), MOST_OF_TENANT in jobs.values()) if jobs else Found(())


def _letters(connection: Connection) -> Found:
    found = backlog.open_dead_letters(connection)
    letters = Counter({(task_label(task),): 0 for task in registry.names()})
    for task, number in found.of.items():
        letters[task_label(task),] += number
    return Found((_each("dead_letters_open", letters),), found.estimated)


def _connections(connection: Connection) -> Found:
    families = (
        _each("database_connections", connections(connection)),
        _single("database_connections_max", most_connections(connection)),
    )
    return Found(families)


def _history(connection: Connection) -> Found:
    ahead = history.days_ahead(history.periods(connection), history.moment(connection).date())
    return Found((_single("history_days_ahead", ahead),))


def _audit(connection: Connection) -> Found:
    return Found((_single("audit_unsealed_age_seconds", seal_store.oldest_waiting(connection)),))


def _schedules(connection: Connection) -> Found:
    return Found((_single("djps_schedules_overdue", schedule_store.overdue(connection, LATE)),))


def _groups(connection: Connection) -> Found:
    return Found((_single("djps_group_ends_age_seconds", group_store.oldest_note(connection)),))


def _workflows(connection: Connection) -> Found:
    return Found((_single("djps_workflows_overdue", workflow_store.overdue_by_notes(connection, LATE)),))


#: Each is asked by itself: one that takes too long costs the others nothing.
Question = Callable[[Connection], Found]
QUESTIONS: tuple[Question, ...] = (
    _depths,
    _pauses,
    _limits,
    _tenants,
    _letters,
    _connections,
    _history,
    _audit,
    _schedules,
    _groups,
    _workflows,
)


class LiveGauges(Collector):
    """Reads depths, ages, connections, memory and heartbeats.

    Args:
        engine: the database.
        redis: a client that gives up after `SCRAPE_TIMEOUT`.
        replica: the read replica, where one is set.
        is_open: no key is asked for, and the API is not on loopback.
    """

    def __init__(
        self, engine: Engine, redis: Redis, replica: ReadReplica | None = None, *, is_open: bool = False
    ) -> None:
        self._engine = engine
        self._is_open = is_open
        self._redis = redis
        self._replica = replica
        #: What each question to PostgreSQL was last answered.
        self._found: dict[Question, Found] = {}

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Everything that can be read now."""
        build = _gauge("djps_build_info")
        build.add_metric([VERSION, platform.python_version()], 1)
        yield build
        yield _single("djps_auth_open", self._is_open)
        yield from self._database()
        if self._replica is not None:
            yield from _of_replica(self._replica.look())
        try:
            yield from [*self._broker(), _single("redis_up", 1)]
        except RedisError as error:
            _say("redis_up", error)
            yield _single("redis_up", 0)

    def _database(self) -> Iterator[GaugeMetricFamily]:
        """Whether it answers is a question of its own: a slow count says nothing of that."""
        try:
            with deadlines.within(ANSWER_TIMEOUT), self._engine.connect() as connection:
                connection.execute(text("SELECT 1"))
        except SQLAlchemyError as error:
            _say("database_up", error)
            yield _single("database_up", 0)
            return
        yield _single("database_up", 1)
        kept = False
        for question in QUESTIONS:
            try:
                with deadlines.within(QUESTION_TIMEOUT), self._engine.connect() as connection:
                    backlog.bound(connection)
                    self._found[question] = question(connection)
            except SQLAlchemyError as error:
                _say(question.__name__, error)
                kept = True
        for found in self._found.values():
            yield from found.families
        yield _single("job_counts_estimated", any(found.estimated for found in self._found.values()))
        yield _single("database_gauges_kept", kept)

    def _broker(self) -> Iterator[GaugeMetricFamily]:
        memory = self._redis.info("memory")
        yield _single("redis_memory_used_bytes", memory["used_memory"])
        yield _single("redis_memory_max_bytes", memory["maxmemory"] or memory.get("total_system_memory", 0))
        # The first of them have series of their own, as everywhere.
        queues = [name for name in registry.queues() if queue_label(name) == name] + [MAINTENANCE_QUEUE]
        yield _each("broker_messages", {(name,): waiting_in(self._redis, [name]) for name in queues})
        workers = heartbeats.workers(self._redis)
        yield _single("active_workers", len(workers))
        listening = Counter(queue for one in workers for queue in set(one.queues))
        yield _each("queue_workers", {(name,): listening[name] for name in queues} | self._least(listening))
        yield from _of_workers(workers)
        yield _single("beat_last_tick_age_seconds", heartbeats.tick_age(self._redis))

    def _least(self, listening: Counter[str]) -> dict[tuple[str], int]:
        """Of the queues with due jobs and no label of their own, the fewest workers that one has.

        After a restart with fewer handlers, jobs may wait in a queue that is not known here any more.
        """
        found = self._found.get(_depths)
        return {(OTHER,): min(listening[name] for name in found.nameless)} if found and found.nameless else {}


def _of_replica(found: Look) -> Iterator[GaugeMetricFamily]:
    yield _single("read_replica_usable", found.is_usable)
    if found.age is not None:
        yield _single("read_replica_lag_seconds", found.age)


def _of_workers(workers: Iterable[heartbeats.Worker]) -> Iterator[GaugeMetricFamily]:
    """Workers by what they call themselves, which a restart does not change; two of one name are added up."""
    alive, children, busy = Counter[tuple[str]](), Counter[tuple[str]](), Counter[tuple[str]]()
    idle: dict[tuple[str], float] = {}
    for worker in workers:
        name = (worker.role,)
        if name not in alive and len(alive) == heartbeats.MOST_SHOWN:
            continue
        alive[name] += 1
        children[name] += worker.children
        busy[name] += worker.busy
        idle[name] = min(worker.idle, idle.get(name, worker.idle))
    yield _each("worker_up", alive)
    yield _each("worker_children", children)
    yield _each("worker_busy_children", busy)
    yield _each("worker_last_claim_age_seconds", idle)


def _each(name: str, values: Mapping[Any, float]) -> GaugeMetricFamily:
    family = _gauge(name)
    for labels, value in sorted(values.items()):
        family.add_metric(list(labels), value)
    return family
