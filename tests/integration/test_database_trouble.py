"""What clients are told while PostgreSQL is read-only, locked or quoting payloads, and how soon all is well again."""

from __future__ import annotations

import json
import time
from contextlib import contextmanager
from dataclasses import replace

import psycopg2
import pytest
from factories import dead_lettered, queued, row_of
from sqlalchemy import text
from sqlalchemy.engine import make_url

from ops.stack.throwaway import Throwaway
from tasks.attempt import claims
from tasks.retrying import DATABASE_ERRORS
from tasks.runtime import runtime
from tasks.sweeps import dispatch
from webapp.infra.telemetry.logs import JsonFormatter

#: Longest a request may take that is refused, seconds.
REFUSED_WITHIN = 1.5
#: All is well this long after the fault, seconds.
HEALS_WITHIN = 5.0


@contextmanager
def session(settings):
    """A session of an operator, past DJPS's pools and settings."""
    url = make_url(settings.database_url).set(drivername="postgresql")
    connection = psycopg2.connect(url.render_as_string(hide_password=False))
    try:
        yield connection
    finally:
        connection.close()


def operate(settings, sql):
    with session(settings) as connection:
        connection.set_session(readonly=False, autocommit=True)
        with connection.cursor() as cursor:
            cursor.execute(sql)


@pytest.fixture
def read_only(app, engine, settings):
    """The database is read-only from `begin` to `end`, for the sessions that begin meanwhile."""

    class Fault:
        def begin(self):
            operate(settings, "ALTER DATABASE djps SET default_transaction_read_only = on")
            for pool in (engine, runtime().engine):
                pool.dispose()

        def end(self):
            operate(settings, "ALTER DATABASE djps RESET default_transaction_read_only")

    fault = Fault()
    yield fault
    fault.end()
    for pool in (engine, runtime().engine):
        pool.dispose()


@contextmanager
def locked(settings, sql, *values):
    """Another session holds what a statement locks."""
    with session(settings) as connection, connection.cursor() as cursor:
        cursor.execute(sql, values or None)
        try:
            yield
        finally:
            # Closing alone would not wait until the server has let go.
            connection.rollback()


def refused(answer, began, word):
    assert answer.status_code == 503, answer.text
    assert int(answer.headers["Retry-After"]) >= 1
    assert word in answer.json["detail"]
    assert time.monotonic() - began < REFUSED_WITHIN


def post(client, **more):
    return client.post("/jobs", json={"payload": {"task": "noop"}, **more})


def test_a_read_only_database_refuses_in_words_and_heals(client, engine, read_only, eventually):
    job = queued(engine)
    read_only.begin()
    for request in (
        lambda: post(client),
        lambda: post(client, idempotency_key="k"),
        lambda: client.post("/jobs/batch", json={"jobs": [{"payload": {"task": "noop"}}]}),
        lambda: client.post(f"/jobs/{job.id}/cancel"),
        lambda: client.post(f"/jobs/{job.id}/retry"),
    ):
        refused(request(), time.monotonic(), "read-only")
    ready = client.get("/health/ready")
    assert (ready.status_code, ready.json["dependencies"]["postgresql"]) == (503, "read-only")
    assert client.get(f"/jobs/{job.id}").json["status"] == "queued"
    read_only.end()
    # The sessions that began meanwhile stay read-only, so it is the pool that has to forget them.
    eventually(lambda: post(client).status_code == 201, HEALS_WITHIN)
    assert client.get("/health/ready").status_code == 200
    assert client.post(f"/jobs/{job.id}/cancel").status_code == 200


def test_readiness_alone_replaces_connections_that_were_led_to_a_read_only_server(client, read_only):
    read_only.begin()
    assert client.get("/health/ready").status_code == 503
    read_only.end()
    assert client.get("/health/ready").status_code == 200
    assert post(client).status_code == 201


def test_a_worker_claims_again_once_the_database_takes_writes(engine, read_only, eventually):
    job = queued(engine)
    parts = runtime()
    impatient = replace(parts, settings=parts.settings.model_copy(update={"stuck_job_threshold": 1.0}))
    read_only.begin()
    with pytest.raises(DATABASE_ERRORS):
        claims.claim_one(impatient, job.id)
    read_only.end()

    def claimed():
        try:
            return claims.claim_one(parts, job.id)
        except DATABASE_ERRORS:
            return None

    assert eventually(claimed, HEALS_WITHIN).id == job.id


def test_beats_tasks_go_on_once_the_database_takes_writes(engine, read_only, eventually):
    queued(engine)
    read_only.begin()
    with pytest.raises(DATABASE_ERRORS):
        dispatch.run_dispatch(runtime())
    read_only.end()

    def dispatched():
        try:
            return dispatch.run_dispatch(runtime())
        except DATABASE_ERRORS:
            return 0

    assert eventually(dispatched, HEALS_WITHIN) == 1


def test_a_locked_table_is_busy_and_no_race_for_a_key(client, engine, settings):
    waiting, dead = queued(engine), dead_lettered(engine)
    with locked(settings, "LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE"):
        for request in (
            lambda: post(client),
            lambda: post(client, idempotency_key="k"),
            lambda: client.post("/jobs/batch", json={"jobs": [{"payload": {"task": "noop"}}]}),
            lambda: client.post(
                "/jobs/batch", json={"jobs": [{"payload": {"task": "noop"}, "idempotency_key": "b"}]}
            ),
            lambda: client.post(f"/jobs/{waiting.id}/cancel"),
            lambda: client.post(f"/jobs/{dead.id}/retry"),
            lambda: client.post(f"/dlq/{dead.id}/requeue"),
            lambda: client.post(f"/dlq/{dead.id}/discard"),
            lambda: client.get(f"/jobs/{waiting.id}"),
        ):
            began = time.monotonic()
            refused(request(), began, "busy")
        assert client.get("/health/ready").status_code == 200
    assert post(client, idempotency_key="k").status_code == 201


def test_a_locked_table_of_keys_is_busy_too(client, settings):
    with locked(settings, "LOCK TABLE idempotency_keys IN ACCESS EXCLUSIVE MODE"):
        refused(post(client, idempotency_key="k"), time.monotonic(), "busy")
        assert post(client).status_code == 201


def test_a_key_that_another_request_is_storing_is_a_race(client, settings):
    insert = (
        "INSERT INTO idempotency_keys (key, fingerprint, job_id, expires_at)"
        " VALUES ('k', '', gen_random_uuid(), now() + interval '1 day')"
    )
    with locked(settings, insert):
        for answer in (
            post(client, idempotency_key="k"),
            client.post(
                "/jobs/batch", json={"jobs": [{"payload": {"task": "noop"}, "idempotency_key": "k"}]}
            ),
        ):
            assert answer.status_code == 409
            assert answer.headers["Retry-After"] == "1"
            assert "idempotency_key" in answer.json["detail"]


ROW = "SELECT FROM jobs WHERE id = %s FOR UPDATE"


def test_a_locked_row_is_busy_for_those_who_cancel_and_retry(client, engine, settings):
    waiting, dead = queued(engine), dead_lettered(engine)
    with locked(settings, ROW, str(waiting.id)):
        refused(client.post(f"/jobs/{waiting.id}/cancel"), time.monotonic(), "busy")
    with locked(settings, ROW, str(dead.id)):
        refused(client.post(f"/jobs/{dead.id}/retry"), time.monotonic(), "busy")
    assert row_of(engine, waiting.id).status == "queued"
    assert row_of(engine, dead.id).status == "failed"


@pytest.mark.parametrize("verb", ["requeue", "discard"])
@pytest.mark.parametrize("sql", [ROW, "SELECT FROM dead_letters WHERE job_id = %s FOR UPDATE"])
def test_a_locked_dead_letter_is_busy_and_not_gone(client, engine, settings, verb, sql):
    dead = dead_lettered(engine)
    with locked(settings, sql, str(dead.id)):
        answer = client.post(f"/dlq/{dead.id}/{verb}")
        assert (answer.status_code, answer.headers["Retry-After"]) == (409, "1")
        assert "busy" in answer.json["detail"]
    assert client.post(f"/dlq/{dead.id}/{verb}").status_code == 200
    again = client.post(f"/dlq/{dead.id}/{verb}")
    assert (again.status_code, again.headers.get("Retry-After")) == (409, None)


SECRET = "sesame-4711"


@pytest.fixture
def refusing_rows(engine):
    """PostgreSQL refuses every new job, and quotes it."""
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE jobs ADD CONSTRAINT no_jobs CHECK (false) NOT VALID"))
    yield
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE jobs DROP CONSTRAINT no_jobs"))


def test_what_the_database_quotes_reaches_no_log(client, refusing_rows, caplog):
    answers = [
        client.post("/jobs", json={"payload": {"task": "noop", "s": SECRET}, "idempotency_key": SECRET}),
        client.post("/jobs/batch", json={"jobs": [{"payload": {"task": "noop", "s": SECRET}}]}),
    ]
    assert [answer.status_code for answer in answers] == [500, 500]
    assert all(SECRET not in answer.text for answer in answers)
    lines = [JsonFormatter().format(record) for record in caplog.records]
    assert not [line for line in lines if SECRET in line]
    told = [one for one in map(json.loads, lines) if one["message"] == "request failed unexpectedly"]
    assert [(one["sqlstate"], one["constraint"]) for one in told] == [("23514", "no_jobs")] * 2


def test_the_servers_own_log_holds_a_code_and_no_row():
    with Throwaway() as servers:
        address = make_url(servers.database_url).set(drivername="postgresql")
        connection = psycopg2.connect(address.render_as_string(hide_password=False))
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("CREATE TABLE kept (key text PRIMARY KEY, payload jsonb)")
            insert = "INSERT INTO kept VALUES (%s, CAST(%s AS jsonb))"
            cursor.execute(insert, (SECRET, "{}"))
            for payload in ("{}", f'{{"s": "{SECRET}'):
                with pytest.raises(psycopg2.Error):
                    cursor.execute(insert, (SECRET, payload))
        connection.close()
        written = (servers.folder / "servers.log").read_text()
    assert SECRET not in written
    assert "23505" in written
    assert "22P02" in written
