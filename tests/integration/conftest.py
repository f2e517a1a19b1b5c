"""Servers that are away, applications with other settings, handlers for one test."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from collector import Collector, collecting
from factories import books
from flask import Flask
from kombu import Queue as KombuQueue
from sqlalchemy import Engine, create_engine

from tasks.runtime import Runtime, runtime
from webapp import create_app
from webapp.api.extensions import limiter
from webapp.audit import seal_store
from webapp.audit.sealing import seal_next
from webapp.audit.seals import Seal
from webapp.flow import store as flow_store
from webapp.flow.limits import QueueLimits
from webapp.flow.model import Kind, Target
from webapp.infra.broker.client import celery
from webapp.infra.broker.publish import Broker
from webapp.infra.postgres.engine import engine_options
from webapp.infra.telemetry import traces
from webapp.jobs.handlers import MAINTENANCE_QUEUE, Handler, HandlerFunction, registry
from webapp.queues.dispatch import Dispatcher
from webapp.settings import Settings

#: How long a test's broker waits for Redis, seconds.
REDIS_PATIENCE = 5.0
#: What `limit` is about where nothing else is said.
DEFAULT_QUEUE = Target(Kind.QUEUE, "default")


@pytest.fixture(autouse=True)
def _over_empty_servers(clean: None) -> None:
    """Each test here begins with empty tables and an empty broker."""


@pytest.fixture
def keeping(engine: Engine) -> Iterator[Engine]:
    """An engine of one session that keeps plans, as workers have it."""
    made = create_engine(engine.url, **engine_options("djps-test", pool_size=1, finds_rows=True))
    yield made
    made.dispose()


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port where connections are refused: it is bound, and no one listens."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port where connections are taken and nothing is ever answered."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        yield listener.getsockname()[1]


@pytest.fixture
def another_app(app: Flask, settings: Settings) -> Iterator[Callable[..., Flask]]:
    """Makes applications with other settings; the shared one gets its limiter back."""
    before = dict(vars(limiter))
    made: list[Flask] = []

    def make(**changes: Any) -> Flask:
        made.append(create_app(Settings(**(settings.model_dump(by_alias=True) | changes)), command_line=True))
        return made[-1]

    yield make
    vars(limiter).update(before)
    for other in made:
        # Else threads of it write what it counted in the middle of a later test, and leave a connection open.
        other.extensions["refusals"].flush()
        other.extensions["doorkeeper"].uses.flush()
        with other.app_context():
            other.extensions["sqlalchemy"].engine.dispose()


@pytest.fixture
def handle() -> Iterator[Callable[..., str]]:
    """Registers a function as a handler for one test, and gives its name."""
    names: list[str] = []

    def register(function: HandlerFunction, **limits: Any) -> str:
        names.append(f"test.{len(names)}")
        added = Handler(names[-1], function, **limits)
        registry.add(added)
        # Celery learns its queues at start; a handler that comes later brings its own.
        celery.amqp.queues.setdefault(added.queue, KombuQueue(added.queue))
        return names[-1]

    yield register
    for name in names:
        registry._handlers.pop(name, None)
    for queue in set(celery.amqp.queues) - {*registry.queues(), MAINTENANCE_QUEUE}:
        celery.amqp.queues.pop(queue)


class Clock:
    """A clock that a test sets; it stands still."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def broker(settings: Settings, clock: Clock) -> Broker:
    """A broker that has heard nothing yet and goes by the test's clock.

    It waits for Redis for longer than a request may: on a machine that stands still for a moment it would give up, and by a clock
    that does not move it would not ask again.
    """
    return Broker(
        settings.redis_url,
        buffer=settings.broker_buffer,
        chunk_of=registry.chunk_of,
        timeout=REDIS_PATIENCE,
        clock=clock,
    )


@pytest.fixture
def dispatcher(app: Flask, engine: Engine, broker: Broker) -> Dispatcher:
    """A dispatcher over that broker."""
    return Dispatcher(engine, broker)


@pytest.fixture
def parts(app: Flask) -> Runtime:
    """What a worker's child works with."""
    return runtime()


@pytest.fixture
def limit(app: Flask, engine: Engine) -> Callable[..., None]:
    """Gives a queue or a task limits, known at once to every process."""

    def give(limits: QueueLimits, target: Target = DEFAULT_QUEUE) -> None:
        with engine.begin() as connection:
            flow_store.lock(connection, target)
            flow_store.set_limits(connection, target, limits)
        for book in books(app):
            book.forget()

    return give


@pytest.fixture
def paused(parts: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker's broker sends nothing, as for a moment after a failure."""
    monkeypatch.setattr(parts.broker.client, "available", lambda: False)


@pytest.fixture
def collector(settings: Settings) -> Iterator[Collector]:
    """A collector that this process tells of everything, when it is asked by `told`."""
    with collecting() as made:
        endpoint = {"otel_exporter_otlp_endpoint": f"{made.url}/"}
        traces.install(settings.model_copy(update=endpoint), "test", "9")
        yield made
        traces.install(settings, "test", "9")


@pytest.fixture
def seal(engine: Engine, eventually: Callable[..., object]) -> Callable[..., list[Seal]]:
    """Seals all that is on record; another session's transaction may be in the way for a moment."""

    def all_of_it(batch: int = 1_000, keys: Sequence[str] = (), server: int | None = None) -> list[Seal]:
        made = []

        def none_waits() -> bool:
            while (one := seal_next(engine, keys, batch, server)) is not None:
                made.append(one)
            with engine.connect() as connection:
                newest = seal_store.newest(connection)
                return seal_store.waiting(connection, newest, limit=1) == 0

        eventually(none_waits)
        return made

    return all_of_it


@pytest.fixture
def flask(app):
    """Runs `flask --app wsgi ...` in this process."""
    return lambda *words, **how: app.test_cli_runner().invoke(args=[str(word) for word in words], **how)
