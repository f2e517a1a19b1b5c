"""Real servers for every test: `python3 -m ops test` starts them and names them in the environment."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from factories import books, preparing
from flask import Flask
from flask.testing import FlaskClient
from flask_migrate import upgrade
from hypothesis import settings as hypothesis_settings
from redis import Redis
from sqlalchemy import Engine, text
from statements import recorded

from webapp import create_app
from webapp.jobs import history
from webapp.jobs.service import Jobs
from webapp.queues.outbox import Outbox
from webapp.settings import Settings

# A busy machine is slow now and then; a test that is slow for no reason shows in the durations.
hypothesis_settings.register_profile("djps", deadline=None, max_examples=50)
hypothesis_settings.load_profile("djps")

#: How long `eventually` waits, seconds.
PATIENCE = 20.0
#: The tables in which something was written since they were emptied, and be it taken back. Emptying makes each file of a
#: table and its indexes anew, so that only those are emptied that need it.
_WRITTEN = text("""
    SELECT string_agg(oid::regclass::text, ', ')
      FROM pg_class
     WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND relname NOT IN ('alembic_version', 'tenants')
       AND pg_relation_size(oid) > 0""")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--record-statements", metavar="FILE", help="write down what the code says to PostgreSQL"
    )


@pytest.fixture(scope="session", autouse=True)
def _record_statements(request: pytest.FixtureRequest) -> Iterator[None]:
    file = request.config.getoption("--record-statements")
    with recorded(Path(file)) if file else nullcontext():
        yield


@pytest.fixture(scope="session")
def settings() -> Settings:
    """Those of the environment, without the limit on submissions: tests that are about it set their own."""
    return Settings.load().model_copy(update={"rate_limit": ""})


@pytest.fixture(scope="session")
def application(settings: Settings) -> Flask:
    """One migrated application for the whole run."""
    made = create_app(settings, command_line=True)
    with made.app_context():
        upgrade()
        # Migrations wait longer for locks, and their connection would go on doing so.
        made.extensions["sqlalchemy"].engine.dispose()
        _leave_two_days(made.extensions["sqlalchemy"].engine)
    return made


def _leave_two_days(engine: Engine) -> None:
    """Drops the days of history that no test lives to see: emptying each of them costs every test its time."""
    with engine.begin() as connection:
        for period in history.periods(connection)[2:]:
            connection.execute(text(f"DROP TABLE {period.name}"))


@pytest.fixture(scope="session")
def engine(application: Flask) -> Engine:
    with application.app_context():
        return application.extensions["sqlalchemy"].engine


@pytest.fixture(scope="session")
def redis(settings: Settings) -> Iterator[Redis]:
    client = Redis.from_url(settings.redis_url, decode_responses=True)
    yield client
    client.close()


@pytest.fixture
def clean(application: Flask, engine: Engine, redis: Redis) -> None:
    """Empty tables and an empty broker."""
    application.extensions["jobs"].flush()
    application.extensions["doorkeeper"].uses.flush()
    application.extensions["refusals"].flush()
    # Autovacuum gives way after a second; on a busy machine that and the rest are longer than a request may wait.
    with preparing(engine) as connection:
        # The record of acts is only added to; triggers are off for who replays what was done elsewhere.
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        if written := connection.execute(_WRITTEN).scalar():
            # The whole table first: a background thread's question about all of its parts locks them after it.
            connection.execute(text(f"LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE; TRUNCATE {written}"))
        connection.execute(text("DELETE FROM tenants WHERE id <> 1"))
    redis.flushdb()
    for book in books(application):
        book.forget()


@pytest.fixture
def app(application: Flask, clean: None) -> Flask:
    """pytest-flask's application, over empty servers."""
    return application


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def service(app: Flask) -> Jobs:
    """Where the application's jobs are submitted and looked up."""
    return app.extensions["jobs"]


@pytest.fixture
def outbox(service: Jobs) -> Outbox:
    """The hints of the application on their way."""
    return service._hints


def wait_until(condition: Callable[[], object], patience: float = PATIENCE) -> object:
    """Polls a condition until it holds, and returns what it returned.

    Raises:
        AssertionError: it did not hold within `patience` seconds; shows what it returned last.
    """
    end = time.monotonic() + patience
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < end, f"not within {patience:g} s; last seen: {found!r}"
        time.sleep(0.02)


def until_answered(send: Callable[[], Any]) -> Any:
    """Sends a request again while the answer names a time to come again, as clients do: a busy machine refuses some.

    Raises:
        AssertionError: so it was for `PATIENCE` seconds.
    """
    end = time.monotonic() + PATIENCE
    while "Retry-After" in (answer := send()).headers:
        assert time.monotonic() < end, f"not within {PATIENCE:g} s; last answer: {answer.status_code}"
        time.sleep(0.02)
    return answer


@pytest.fixture(scope="session")
def answered() -> Callable[..., Any]:
    """`until_answered`, by name."""
    return until_answered


@pytest.fixture(scope="session")
def eventually() -> Callable[..., object]:
    """`wait_until`, by name."""
    return wait_until
