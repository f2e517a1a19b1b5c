"""What a worker process works with: settings, database, broker, the rules in force, and its own name."""

from __future__ import annotations

import os
import socket
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache, partial

from sqlalchemy import Engine, create_engine
from sqlalchemy.pool import NullPool
from uuid_utils.compat import uuid7

from tasks.processes.file_descriptors import files
from webapp.batches.control import Keeper
from webapp.batches.course import CallbackTerms
from webapp.batches.service import Batches
from webapp.flow.book import FlowBook
from webapp.infra.broker.publish import Broker
from webapp.infra.postgres.engine import engine_options, watch_idle
from webapp.infra.postgres.hosts import go_through_hosts
from webapp.jobs.admission import Admission
from webapp.jobs.handlers import registry
from webapp.jobs.known import Telling
from webapp.jobs.retry import RetryPolicy
from webapp.jobs.service import Jobs
from webapp.jobs.submission import Limits, Rules
from webapp.queues.dispatch import Dispatcher, hand_back
from webapp.queues.outbox import Outbox
from webapp.schedules.firer import Firer
from webapp.schedules.making import JobMaker
from webapp.settings import Settings, current
from webapp.workflows.advancer import Advancer
from webapp.workflows.means import Means

#: Connections a forked child keeps open: one runs jobs.
CHILD_POOL = 1

#: Names this start of the worker. Children inherit it by fork; two starts never share it, so a lease of an
#: earlier start is never taken for one of ours.
_BOOT = f"{socket.gethostname()}:{os.getpid()}:{uuid7().hex[-8:]}"


@dataclass(frozen=True, slots=True)
class Runtime:
    """The parts every task needs, made once per process."""

    settings: Settings
    engine: Engine
    broker: Broker
    book: FlowBook
    dispatcher: Dispatcher
    policy: RetryPolicy
    firer: Firer
    advancer: Advancer
    telling: Telling
    keeper: Keeper


@cache
def runtime() -> Runtime:
    """This process's parts; `forget_parent` makes a forked child build its own."""
    settings = current()
    engine = files.watch(
        watch_idle(
            create_engine(
                settings.database_url,
                **engine_options(
                    "djps-worker", pool_size=CHILD_POOL, finds_rows=True, url=settings.database_url
                ),
            )
        )
    )
    broker = Broker(
        settings.redis_url,
        buffer=settings.broker_buffer,
        chunk_of=registry.chunk_of,
        most=settings.max_tasks_per_child,
    )
    files.on_loss(broker.client.give_up)
    policy = RetryPolicy(settings.backoff_base, settings.max_backoff, settings.backoff_jitter)
    book = FlowBook(engine)
    limits = Limits.of(settings)
    maker = JobMaker(Rules(registry, limits), book, Admission(engine, nullcontext))
    firer = Firer(engine, maker)
    outbox = Outbox(broker, partial(hand_back, engine), has_thread=False)
    advancer = Advancer(
        engine, Means(maker, outbox, settings.max_payload_bytes, CallbackTerms(settings.job_timeout))
    )
    telling = Telling(engine, registry, limits, settings.max_payload_bytes)
    keeper = Keeper(engine, book, CallbackTerms(settings.job_timeout))
    dispatcher = Dispatcher(engine, broker, book)
    return Runtime(settings, engine, broker, book, dispatcher, policy, firer, advancer, telling, keeper)


@cache
def submissions() -> Jobs:
    """This process's front door of jobs, for handlers that submit some; made by the first of them.

    Its hints are sent by who submits: a child has no thread that would outlive its job.
    """
    parts = runtime()
    outbox = Outbox(parts.broker, partial(hand_back, parts.engine), has_thread=False)
    return Jobs(parts.engine, Rules(registry, Limits.of(parts.settings)), outbox, parts.book)


@cache
def batches() -> Batches:
    """This process's front door of batches, for members that add some to theirs; made by the first of them."""
    parts = runtime()
    rules = Rules(registry, Limits.of(parts.settings))
    terms = CallbackTerms(parts.settings.job_timeout)
    return Batches(parts.engine, submissions(), rules, parts.book, callbacks=terms)


def forget_parent() -> None:
    """Drops what was inherited by fork: a connection shared by two processes mixes up their answers."""
    runtime.cache_clear()
    submissions.cache_clear()
    batches.cache_clear()


def unpooled_engine() -> Engine:
    """An engine for the worker's parent: a connection per use, so that no fork inherits an idle one."""
    url = current().database_url
    options = engine_options("djps-presence", pool_size=1, url=url)
    return go_through_hosts(
        create_engine(url, poolclass=NullPool, hide_parameters=True, connect_args=options["connect_args"])
    )


def worker_name() -> str:
    """The worker this process belongs to: host, parent's pid, and a part that is new at every start."""
    return _BOOT


def child_name(pid: int | None = None) -> str:
    """The holder of a lease: this process, or the worker's child with this pid."""
    return f"{_BOOT}/{pid or os.getpid()}"
