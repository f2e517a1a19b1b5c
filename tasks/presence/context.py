"""What the steps of presence share: the worker's name, settings and clock, and its ways to PostgreSQL and Redis."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from tasks.liveness import FRESH
from tasks.runtime import unpooled_engine, worker_name
from webapp.infra.background import Clock
from webapp.infra.broker import heartbeats
from webapp.infra.postgres import deadlines
from webapp.jobs.retry import RetryPolicy
from webapp.settings import Settings

#: Heartbeats in one time to live.
BEATS_PER_TTL = 3
#: Share of a lease that one step may wait for PostgreSQL.
WAIT_SHARE = 1 / 6
#: How long Redis may take to take a heartbeat, seconds.
REDIS_TIMEOUT = 1.0
#: What a step raises when a server is away.
UNREACHABLE = (DBAPIError, RedisError)


@dataclass(slots=True)
class WorkerContext:
    """One worker, as its presence sees it.

    Args:
        settings: lease, heartbeat and grace.
        role: what the worker calls itself, for the heartbeat.
        queues: those that the worker takes messages from.
        capacity: the worker's children.
        engine: PostgreSQL, a connection per use.
        redis: where heartbeats and messages are.
        policy: says what becomes of a job whose process died.
        clock: seconds, monotonic; the same as the children's.
    """

    settings: Settings
    role: str
    queues: tuple[str, ...]
    capacity: int
    engine: Engine
    redis: Redis
    policy: RetryPolicy
    clock: Clock

    @classmethod
    def of(
        cls,
        settings: Settings,
        role: str,
        *,
        queues: Iterable[str] = (),
        capacity: int = 0,
        clock: Clock = time.monotonic,
    ) -> WorkerContext:
        """The context of this process, with connections of its own."""
        return cls(
            settings,
            role,
            tuple(queues),
            capacity,
            unpooled_engine(),
            heartbeats.connect(settings.redis_url, REDIS_TIMEOUT),
            RetryPolicy(settings.backoff_base, settings.max_backoff, settings.backoff_jitter),
            clock,
        )

    @property
    def name(self) -> str:
        """The worker's name."""
        return worker_name()

    @property
    def holders_prefix(self) -> str:
        """What the names of its children begin with, as holders of leases."""
        return worker_name() + "/"

    @property
    def lease(self) -> float:
        """How long a lease is, seconds."""
        return float(self.settings.stuck_job_threshold)

    @property
    def heartbeat_every(self) -> float:
        """Seconds between two heartbeats."""
        return self.settings.worker_heartbeat_ttl / BEATS_PER_TTL

    def bounded(self) -> AbstractContextManager[None]:
        """Bounds the waits for PostgreSQL of one step, so that the steps that need another server are not late."""
        return deadlines.within(min(self.lease * WAIT_SHARE, self.heartbeat_every, FRESH / 2))
