"""Waiting for PostgreSQL: a server that says nothing, and one that is only slow."""

from __future__ import annotations

import threading
import time

import psycopg2
import pytest
from psycopg2 import extensions
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError

from webapp.infra.postgres import deadlines
from webapp.infra.postgres.engine import engine_options

#: Long enough to be told from no wait at all, seconds.
BUDGET = 0.3


@pytest.fixture(autouse=True)
def _gate_open():
    yield
    deadlines._gate.open()


@pytest.fixture
def silent_engine(silent_port, settings):
    url = make_url(settings.database_url).set(port=silent_port)
    engine = create_engine(url, **engine_options("djps-test", pool_size=6))
    yield engine
    engine.dispose()


def ask(engine, statement="SELECT 1"):
    """How long it took, and the error, if there was one."""
    began = time.monotonic()
    try:
        with deadlines.within(BUDGET), engine.connect() as connection:
            connection.execute(text(statement))
    except OperationalError as error:
        return time.monotonic() - began, str(error.orig)
    return time.monotonic() - began, None


def test_a_silent_server_is_given_up_and_the_next_is_refused_at_once(silent_engine, eventually):
    def is_refused_at_once():
        deadlines._gate.open()
        first, why = ask(silent_engine)
        assert first >= BUDGET
        assert "did not answer in time" in why
        second, why = ask(silent_engine)
        return first < BUDGET + 0.3 and second < 0.1 and "a moment ago" in why

    # A background thread of another test that is answered between the two opens the gate.
    eventually(is_refused_at_once)


def test_after_the_pause_one_tries_and_the_others_are_refused(silent_engine, eventually):
    def is_tried_by_one_of_six():
        ask(silent_engine)
        eventually(lambda: time.monotonic() > deadlines._gate._closed_until)
        answers = []
        threads = [threading.Thread(target=lambda: answers.append(ask(silent_engine))) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(5)
        waited = [took for took, _ in answers if took >= BUDGET]
        return (len(waited), len(answers)) == (1, 6)

    # As above: a thread of another test that is answered during the pause opens it.
    eventually(is_tried_by_one_of_six)


def test_a_server_that_is_back_opens_the_gate(silent_engine, engine, eventually):
    def is_refused():
        ask(silent_engine)
        return "a moment ago" in (ask(engine)[1] or "")

    # As above: another thread that is answered opens it.
    eventually(is_refused)
    eventually(lambda: ask(engine)[1] is None, 5)
    assert ask(engine)[1] is None


def test_a_statement_past_its_budget_loses_its_connection_and_the_next_gets_a_new_one(engine, eventually):
    took, why = ask(engine, "SELECT pg_sleep(2)")
    assert took < 1
    assert "in time" in why
    eventually(lambda: ask(engine)[1] is None, 5)


def test_a_slow_statement_shuts_no_one_else_out(engine):
    """While one connection waits in vain for its statement, others are answered: the server is there."""
    told = []
    slow = threading.Thread(target=lambda: told.append(ask(engine, "SELECT pg_sleep(5)")))
    slow.start()
    others = []
    while slow.is_alive():
        others.append(ask(engine)[1])
    others += [ask(engine)[1] for _ in range(20)]
    slow.join()
    assert "in time" in told[0][1]
    assert len(others) > 20
    assert set(others) == {None}


def test_the_rest_of_a_time_that_had_gone_before_says_nothing_of_the_server(engine):
    with deadlines.within(0.5), engine.connect() as connection:
        connection.execute(text("SELECT pg_sleep(0.4)"))
        with pytest.raises(OperationalError):
            connection.execute(text("SELECT pg_sleep(5)"))
    assert ask(engine)[1] is None


def test_without_a_bound_a_thread_waits_as_long_as_it_takes(engine):
    with engine.connect() as connection:
        assert connection.execute(text("SELECT pg_sleep(0.5)")).first() is not None


def test_bounds_nest_and_what_is_uninstalled_is_gone(settings):
    with deadlines.within(5):
        outer = deadlines._local.deadline
        with deadlines.within(1):
            assert deadlines._local.deadline < outer
        assert deadlines._local.deadline == outer
    deadlines.uninstall()
    try:
        assert extensions.get_wait_callback() is None
        plain = make_url(settings.database_url).set(drivername="postgresql")
        psycopg2.connect(plain.render_as_string(hide_password=False)).close()
    finally:
        deadlines.install()
