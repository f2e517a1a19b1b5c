"""Workers as they describe themselves: those that live, what each of their processes runs, and those that went within the hour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID

from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy import Connection, Engine, text

from webapp.infra.broker import heartbeats
from webapp.infra.broker.heartbeats import Worker
from webapp.infra.postgres.engine import in_one_trip
from webapp.infra.postgres.literals import array_of
from webapp.infra.postgres.sql_files import read_sql
from webapp.system.errors import RedisAway, UnknownWorker

#: Most running jobs that are looked up for a list, the longest running first.
MOST_JOBS = 2_000

_RUNNING = text(read_sql(__file__, "running"))


class JobName(NamedTuple):
    """What a running job is."""

    task: str
    queue: str


@dataclass(frozen=True, slots=True)
class Workers:
    """All workers that said something within the last hour, sorted by name.

    Args:
        alive: those whose heartbeat has not run out.
        gone: those whose heartbeat has.
        jobs: what runs in the living ones, by id; a job that ended meanwhile is not among them.
    """

    alive: Sequence[Worker]
    gone: Sequence[Worker]
    jobs: Mapping[UUID, JobName]

    def one(self, name: str) -> Worker:
        """The worker of a name.

        Raises:
            UnknownWorker: none of this name said anything within the hour.
        """
        for worker in (*self.alive, *self.gone):
            if worker.name == name:
                return worker
        raise UnknownWorker(name)


def parted(living: Sequence[Worker], seen: Sequence[Worker]) -> tuple[list[Worker], list[Worker]]:
    """Those that live, and those that are gone. Pure.

    Args:
        living: those whose heartbeat has not run out.
        seen: those that said something within the hour; one of an earlier release that lives is not among them.
    """
    last = {worker.name: worker for worker in seen}
    names = {worker.name for worker in living}
    alive = [last.get(worker.name, worker) for worker in living]
    return alive, [worker for worker in seen if worker.name not in names]


def look(redis: Redis, engine: Engine) -> Workers:
    """All workers, with what they run.

    Raises:
        RedisAway: Redis is not answering.
    """
    try:
        alive, gone = parted(heartbeats.workers(redis), heartbeats.seen_workers(redis))
    except RedisError as error:
        raise RedisAway(error) from error
    ids = _ids_of(alive)
    jobs = in_one_trip(engine, lambda connection: running(connection, ids)) if ids else {}
    return Workers(alive, gone, jobs)


def running(connection: Connection, ids: Sequence[UUID]) -> dict[UUID, JobName]:
    """What jobs are, as far as they live."""
    rows = connection.execute(_RUNNING, {"ids": array_of(ids)})
    return {row[0]: JobName(row[1], row[2]) for row in rows}


def _ids_of(workers: Sequence[Worker]) -> list[UUID]:
    runs = sorted((run for worker in workers for run in worker.runs), key=lambda run: -run.seconds)
    return [job_id for run in runs[:MOST_JOBS] if (job_id := id_of(run.job)) is not None]


def id_of(given: str) -> UUID | None:
    """The id in a worker's words; None where it is none. Pure.

    Example:
        >>> id_of("17") is None
        True
    """
    try:
        return UUID(given)
    except ValueError:
        return None
