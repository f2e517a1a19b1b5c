"""PostgreSQL, Redis, beat and maintenance: whether they are there, and how they do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy import Connection, Engine, text

from webapp.infra.broker import heartbeats
from webapp.infra.broker.heartbeats import Worker
from webapp.infra.postgres.engine import connections, in_transaction, most_connections
from webapp.infra.postgres.sql_files import read_sql
from webapp.settings.sweeps import MAINTENANCE_QUEUE

_SERVERS = text(read_sql(__file__, "servers"))


class Database(NamedTuple):
    """How PostgreSQL does.

    Args:
        size: all tables and indexes of the database, bytes.
        live_rows, dead_rows: as its statistics have them.
        oldest_snapshot: how many transactions ago the oldest snapshot was taken that keeps dead rows from being cleared away.
        oldest_transaction: how long the oldest open transaction has been open, seconds.
        migration: the newest migration that was run.
        connections: those of our processes, by their role and state.
        most_connections: how many it takes in all.
    """

    version: str
    size: int
    live_rows: int
    dead_rows: int
    oldest_snapshot: int
    oldest_transaction: float
    migration: str | None
    connections: Mapping[tuple[str, str], int]
    most_connections: int


class Broker(NamedTuple):
    """How Redis does.

    Args:
        memory, most_memory: what it uses and may use, bytes; 0 for no limit.
        beat_age: seconds since beat last ticked; an hour when that is not known.
        maintenance: live workers that take messages of the sweeps.
        maintenance_idle: seconds since one of them last took one; None without such a worker.
    """

    version: str
    memory: int
    most_memory: int
    beat_age: float
    maintenance: int
    maintenance_idle: float | None


def database(engine: Engine) -> Database:
    """How PostgreSQL does; it answers in a few milliseconds."""

    def ask(connection: Connection) -> Database:
        version, *figures, transaction, migration = connection.execute(_SERVERS).one()
        size, live, dead, snapshot = map(int, figures)
        return Database(
            version,
            size,
            live,
            dead,
            snapshot,
            float(transaction),
            migration,
            connections(connection),
            most_connections(connection),
        )

    return in_transaction(engine, ask)


def broker(redis: Redis) -> Broker | None:
    """How Redis does, and what is known by it; None while it is not answering."""
    try:
        about, memory = redis.info("server"), redis.info("memory")
        idle = list(idle_of_maintenance(heartbeats.workers(redis)))
        return Broker(
            str(about.get("valkey_version") or about.get("redis_version")),
            int(memory["used_memory"]),
            int(memory["maxmemory"]),
            heartbeats.tick_age(redis),
            len(idle),
            min(idle, default=None),
        )
    except RedisError:
        return None


def idle_of_maintenance(workers: Iterable[Worker]) -> Iterable[float]:
    """For how long each worker that runs sweeps has taken no message, seconds. Pure."""
    return (worker.idle for worker in workers if MAINTENANCE_QUEUE in worker.queues)
