"""Rows in known states, and what became of them. Everything goes through the store's own statements."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any
from uuid import UUID

from celery.exceptions import Retry
from ending import complete, end_last
from flask import Flask
from redis import Redis
from sqlalchemy import Connection, Engine, RowMapping, text
from uuid_utils.compat import uuid7

from tasks.execution import JobsFailed
from tasks.presence import lost_jobs
from tasks.runtime import runtime, submissions
from webapp.access.attempts import FailedAttempts
from webapp.access.book import KeyBook
from webapp.dead_letters.model import NewDeadLetter
from webapp.dead_letters.store import move_to_dead_letters
from webapp.flow.book import FlowBook
from webapp.flow.looks import Looks
from webapp.flow.reach import EVERYTHING
from webapp.infra.background import Clock
from webapp.infra.broker.publish import Broker
from webapp.infra.broker.transport import lists_of
from webapp.jobs import insert, store
from webapp.jobs.error_report import ErrorReport
from webapp.jobs.handlers import registry
from webapp.jobs.loss import LOST
from webapp.jobs.model import Claim, JobRow, LeasedJob
from webapp.jobs.retry import DeathReason, RetryPolicy
from webapp.jobs.service import Jobs
from webapp.jobs.states import AttemptOutcome
from webapp.jobs.submission import Limits, NewJob, Rules
from webapp.queues.dispatch import hand_back
from webapp.queues.outbox import Outbox

#: What a message about a job that did not complete ends with.
ENDS = (Retry, JobsFailed)


def ended(task: Any, *arguments: object) -> None:
    """Has a message's task run to its end, whatever became of its jobs."""
    with suppress(*ENDS):
        task.run(*arguments)


@contextmanager
def preparing(engine: Engine) -> Iterator[Connection]:
    """A transaction that prepares a test, or clears up after it: with more time than a request has, for the machine may be busy."""
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL statement_timeout = 60000; SET LOCAL lock_timeout = 60000"))
        yield connection


WORKER = "host:1:boot/2"
#: Lease of jobs that tests claim, seconds.
LEASE = 60.0
ERROR = ErrorReport("E", "broken", "Traceback")


def books(application: Flask) -> list[FlowBook | Looks | KeyBook | FailedAttempts]:
    """What this process knows of rules: the book of the application and that of the worker whose code runs here, its looks, its keys, failed attempts."""
    return [
        application.extensions["doorkeeper"].book,
        application.extensions["doorkeeper"].attempts,
        application.extensions["flow"]._book,
        runtime().book,
        application.extensions["jobs"].admission.looks,
        submissions().admission.looks,
    ]


def service_over(
    engine: Engine,
    broker: Broker,
    *,
    default_handler: str = "simulated",
    handing_back: Engine | None = None,
    clock: Clock = time.monotonic,
) -> Jobs:
    """Where jobs are submitted, with a broker of its own.

    Args:
        handing_back: the engine by which hints are handed back that were not sent.
        clock: by which hints are alone or many.
    """
    limits = Limits(max_retries=3, timeout=300.0, default_handler=default_handler)
    outbox = Outbox(broker, partial(hand_back, handing_back or engine), clock)
    return Jobs(engine, Rules(registry, limits), outbox)


def new_job(**changes: Any) -> NewJob:
    """A job that is not stored yet."""
    payload = changes.pop("payload", {"task": "noop"})
    values: dict[str, Any] = {
        "id": uuid7(),
        "task": "noop",
        "payload": json.dumps(payload),
        "queue": "default",
        "max_retries": 3,
        "timeout": 300.0,
        "idempotency_key": None,
        "fingerprint": b"f",
    }
    return NewJob(**(values | changes))


def queued(engine: Engine, *, dispatched: bool = False, **changes: Any) -> JobRow:
    """A job that waits."""
    with engine.begin() as connection:
        row = insert.insert_once(connection, new_job(**changes), dispatched=dispatched)
    assert row is not None
    return row


def claimed(engine: Engine, *, worker_id: str = WORKER, lease: float = LEASE, **changes: Any) -> Claim:
    """A job that runs."""
    row = queued(engine, **changes)
    with engine.begin() as connection:
        (claim,) = store.claim(connection, [row.id], worker_id=worker_id, lease=lease)
    return claim


def completed(engine: Engine, result: str | None = None, **changes: Any) -> Claim:
    """A job that completed."""
    claim = claimed(engine, **changes)
    with engine.begin() as connection:
        assert complete(connection, claim, result)
    return claim


def dead_lettered(
    engine: Engine,
    error: ErrorReport = ERROR,
    reason: DeathReason = DeathReason.EXHAUSTED,
    **changes: Any,
) -> Claim:
    """A job in the dead letter queue."""
    claim = claimed(engine, **changes)
    with engine.begin() as connection:
        assert end_last(connection, claim, AttemptOutcome.FAILED, error, reason=reason)
        assert move_to_dead_letters(connection, claim.id, claim.attempt)
    return claim


def row_of(engine: Engine, job_id: UUID | str) -> JobRow:
    """The job as it stands."""
    with engine.connect() as connection:
        row = store.find(connection, UUID(str(job_id)), EVERYTHING)
    assert row is not None
    return row


def attempts_of(engine: Engine, job_id: UUID) -> list[RowMapping]:
    """The job's attempts that ended, in order."""
    statement = text("SELECT * FROM attempts WHERE job_id = :id ORDER BY attempt")
    with engine.connect() as connection:
        return list(connection.execute(statement, {"id": job_id}).mappings())


def letters_of(engine: Engine, job_id: UUID) -> list[RowMapping]:
    """The job's dead letters."""
    statement = text("SELECT * FROM dead_letters WHERE job_id = :id ORDER BY id")
    with engine.connect() as connection:
        return list(connection.execute(statement, {"id": job_id}).mappings())


def age(engine: Engine, column: str, seconds: float, job_id: UUID | None = None) -> None:
    """Moves a time of one job, or of all, into the past."""
    statement = text(
        f"UPDATE jobs SET {column} = {column} - make_interval(secs => :seconds)"  # noqa: S608 - a column's name
        " WHERE CAST(:id AS uuid) IS NULL OR id = :id"
    )
    with engine.begin() as connection:
        connection.execute(statement, {"seconds": seconds, "id": job_id})


def tables(engine: Engine) -> list[RowMapping]:
    """Everything that is stored about jobs, to tell that nothing was changed."""
    with engine.connect() as connection:
        return [
            row
            for table in ("jobs", "job_attempts", "dead_letters")
            for row in connection.execute(text(f"SELECT * FROM {table} ORDER BY 1, 2")).mappings()  # noqa: S608
        ]


def waiting(redis: Redis, queue: str = "default") -> list[str]:
    """The messages of a queue, in the order in which workers take them."""
    return [one for name in lists_of(queue) for one in reversed(redis.lrange(name, 0, -1))]


def end_lost(connection: Connection, held: LeasedJob) -> NewDeadLetter | None:
    """Ends an attempt whose process is gone, as the sweeper does with one that was alone in its process."""
    if held.recorded:
        return move_to_dead_letters(connection, held.id, held.attempt)
    decision = RetryPolicy().after_loss(retry_count=held.retry_count, max_retries=held.max_retries)
    return lost_jobs.end_lost(connection, held, LOST, decision)
