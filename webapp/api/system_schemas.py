"""The wire format of what those see who run DJPS: workers, settings, servers."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from webapp import VERSION
from webapp.api.schemas import Moment
from webapp.infra.broker.heartbeats import Run, Worker
from webapp.system.servers import Broker, Database
from webapp.system.workers import JobName, id_of


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")


class RunAnswer(_Answer):
    """A job that runs in a process of a worker; `task` and `queue` are null where it ended meanwhile."""

    child: int
    job_id: UUID
    attempt: int
    seconds: float
    task: str | None
    queue: str | None


class WorkerAnswer(_Answer):
    """A worker as it describes itself; what one of an earlier release does not say is null."""

    name: str
    role: str
    host: str
    pid: int | None
    alive: bool
    queues: list[str]
    children: int
    busy: int
    idle_seconds: float
    version: str | None
    started_at: Moment | None
    memory_bytes: int | None
    seen_seconds_ago: float | None
    runs: list[RunAnswer]

    @classmethod
    def of(cls, worker: Worker, jobs: Mapping[UUID, JobName], *, is_alive: bool) -> dict[str, Any]:
        """The JSON-ready form of a worker.

        Args:
            jobs: what its jobs are, by their ids.
            is_alive: its heartbeat has not run out.
        """
        since = worker.seen or 0.0
        runs = [_run(run, jobs, since) for run in worker.runs] if is_alive else []
        answer = cls(
            name=worker.name,
            role=worker.role,
            host=worker.name.partition(":")[0],
            pid=worker.pid or None,
            alive=is_alive,
            queues=list(worker.queues),
            children=worker.children,
            busy=worker.busy if is_alive else 0,
            idle_seconds=round(worker.idle + since, 1),
            version=worker.version or None,
            started_at=_began(worker.up, since),
            memory_bytes=worker.memory or None,
            seen_seconds_ago=None if worker.seen is None else round(worker.seen, 1),
            runs=[run for run in runs if run is not None],
        )
        return answer.model_dump(mode="json")


def _began(up: float | None, since: float) -> datetime | None:
    """When a worker began that said `since` seconds ago for how long it had been up."""
    if up is None:
        return None
    return (datetime.now(UTC) - timedelta(seconds=up + since)).replace(microsecond=0)


def _run(run: Run, jobs: Mapping[UUID, JobName], since: float) -> RunAnswer | None:
    job_id = id_of(run.job)
    if job_id is None:
        return None
    name = jobs.get(job_id)
    return RunAnswer(
        child=run.child,
        job_id=job_id,
        attempt=run.attempt,
        seconds=round(run.seconds + since, 1),
        task=None if name is None else name.task,
        queue=None if name is None else name.queue,
    )


class WorkersAnswer(_Answer):
    """Workers by name: those that live, and those that went within the last hour."""

    items: list[WorkerAnswer]
    gone: list[WorkerAnswer]


class SettingAnswer(_Answer):
    """A setting; of a secret `value` is `set` or empty."""

    name: str
    value: str | int | float | bool
    default: str | int | float | bool
    source: Literal["environment", "file", "stack", "default"]
    is_secret: bool
    rule: str | None
    description: str


class SettingsAnswer(_Answer):
    """The settings in force, in the order of their table in the documentation."""

    items: list[SettingAnswer]


class ConnectionsAnswer(_Answer):
    """Connections of one kind of our processes to PostgreSQL in one state."""

    role: str
    state: str
    count: int


class PostgreSQLAnswer(_Answer):
    """How PostgreSQL does."""

    version: str
    size_bytes: int
    live_rows: int
    dead_rows: int
    oldest_snapshot_transactions: int
    oldest_transaction_seconds: float
    migration: str | None
    connections: list[ConnectionsAnswer]
    connections_max: int


class RedisAnswer(_Answer):
    """How Redis does; `memory_max_bytes` is 0 without a limit."""

    version: str
    memory_used_bytes: int
    memory_max_bytes: int


class SystemAnswer(_Answer):
    """Versions, and how the servers do; null is what is not known while Redis is not answering."""

    version: str
    python: str
    postgresql: PostgreSQLAnswer
    redis: RedisAnswer | None
    beat_tick_age_seconds: float | None
    maintenance_workers: int | None
    maintenance_idle_seconds: float | None

    @classmethod
    def of(cls, database: Database, broker: Broker | None) -> dict[str, Any]:
        """The JSON-ready form."""
        postgresql = PostgreSQLAnswer(
            version=database.version,
            size_bytes=database.size,
            live_rows=database.live_rows,
            dead_rows=database.dead_rows,
            oldest_snapshot_transactions=database.oldest_snapshot,
            oldest_transaction_seconds=round(database.oldest_transaction, 3),
            migration=database.migration,
            connections=[
                ConnectionsAnswer(role=role, state=state, count=count)
                for (role, state), count in sorted(database.connections.items())
            ],
            connections_max=database.most_connections,
        )
        redis = broker and RedisAnswer(
            version=broker.version, memory_used_bytes=broker.memory, memory_max_bytes=broker.most_memory
        )
        answer = cls(
            version=VERSION,
            python=platform.python_version(),
            postgresql=postgresql,
            redis=redis,
            beat_tick_age_seconds=broker and round(broker.beat_age, 3),
            maintenance_workers=broker and broker.maintenance,
            maintenance_idle_seconds=broker and broker.maintenance_idle,
        )
        return answer.model_dump(mode="json")
