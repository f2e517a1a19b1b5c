"""Statements of the hot path go round SQLAlchemy; their errors and connections are treated as it treats them."""

from __future__ import annotations

from uuid import uuid4

import pytest
from psycopg2.extensions import cursor
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError

from webapp.infra.postgres.engine import Statement, engine_options, in_one_trip
from webapp.infra.postgres.prepared import FOR_A_MOMENT, FOR_LONG, Prepared


def test_a_statement_gives_back_rows_and_their_number(engine):
    statement = Statement("SELECT CAST(:one AS int), 'a%b:c' WHERE :one = :one")
    assert in_one_trip(engine, lambda connection: statement.run(connection, {"one": 7})) == (
        [(7, "a%b:c")],
        1,
    )


def test_it_is_part_of_the_transaction_of_its_connection(engine):
    with engine.connect() as connection:
        transaction = connection.begin()
        Statement("CREATE TABLE never_there (x int)").run(connection, {})
        transaction.rollback()
        assert connection.execute(text("SELECT to_regclass('never_there')")).scalar() is None


def test_a_refusal_is_sqlalchemys_error_and_the_connection_goes_on(engine):
    divide = Statement("SELECT 1 / CAST(:number AS int)")
    with pytest.raises(DBAPIError, match="division by zero") as refused:
        in_one_trip(engine, lambda connection: divide.run(connection, {"number": 0}))
    assert not refused.value.connection_invalidated
    assert in_one_trip(engine, lambda connection: divide.run(connection, {"number": 1})).rows == [(1,)]


def test_the_kind_of_a_refusal_is_kept(engine):
    insert = Statement("INSERT INTO jobs_living (id) VALUES (:id)")
    with pytest.raises(IntegrityError):
        in_one_trip(engine, lambda connection: insert.run(connection, {"id": str(uuid4())}))


def test_a_connection_that_is_gone_is_not_used_again(engine):
    with engine.connect() as connection:
        with pytest.raises(OperationalError) as gone:
            Statement("SELECT pg_terminate_backend(pg_backend_pid())").run(connection, {})
        assert gone.value.connection_invalidated
    with engine.connect() as connection:
        assert connection.execute(text("SELECT 1")).scalar() == 1


# Statements whose plans are kept


def planned(engine):
    """What the session of an engine has planned, by name, with how often its plan was used."""
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT name, generic_plans FROM pg_prepared_statements"))
        return dict(tuple(row) for row in rows)


def run_in(engine, statement, **values):
    return in_one_trip(engine, lambda connection: statement.run(connection, values)).rows


def test_a_statement_is_planned_once_for_a_session(keeping):
    statement = Statement("SELECT CAST(:one AS int) + :one, 'a%b:c'", plan_lasts=FOR_LONG)
    assert [run_in(keeping, statement, one=number) for number in (1, 2, 3)] == [
        [(2, "a%b:c")],
        [(4, "a%b:c")],
        [(6, "a%b:c")],
    ]
    assert list(planned(keeping).values()) == [3]


def test_a_session_that_keeps_no_plans_plans_each_time(engine):
    statement = Statement("SELECT CAST(:one AS int)", plan_lasts=FOR_LONG)
    one_session = create_engine(engine.url, **engine_options("djps-test", pool_size=1))
    assert run_in(one_session, statement, one=1) == run_in(one_session, statement, one=1) == [(1,)]
    assert planned(one_session) == {}
    one_session.dispose()


def test_in_a_transaction_it_is_sent_whole(keeping):
    with keeping.begin() as connection:
        Statement("SELECT CAST(:one AS int)", plan_lasts=FOR_LONG).run(connection, {"one": 1})
    assert planned(keeping) == {}


def test_a_session_that_has_forgotten_it_goes_on_without(keeping):
    """As behind a pooler that hands each transaction another session."""
    statement = Statement("SELECT CAST(:one AS int)", plan_lasts=FOR_LONG)
    assert run_in(keeping, statement, one=1) == [(1,)]
    with keeping.begin() as connection:
        connection.exec_driver_sql("DEALLOCATE ALL")
    assert run_in(keeping, statement, one=2) == run_in(keeping, statement, one=2) == [(2,)]
    assert planned(keeping) == {}


def test_a_session_in_which_someone_else_has_prepared_it_goes_on_without(keeping):
    statement = Statement("SELECT CAST(:one AS int)", plan_lasts=FOR_LONG)
    with keeping.begin() as connection:
        connection.exec_driver_sql(statement._prepared.prepare)
    assert run_in(keeping, statement, one=2) == [(2,)]


def test_a_change_of_what_a_statement_gives_back_is_no_error(keeping, engine):
    statement = Statement("SELECT * FROM kept_plans", plan_lasts=FOR_LONG)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE kept_plans AS SELECT 1 AS one")
    try:
        assert run_in(keeping, statement) == [(1,)]
        with engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE kept_plans ADD COLUMN two int DEFAULT 2")
        assert run_in(keeping, statement) == [(1, 2)]
    finally:
        with engine.begin() as connection:
            connection.exec_driver_sql("DROP TABLE kept_plans")


def test_what_a_kept_statement_is_refused_for_is_its_error(keeping):
    divide = Statement("SELECT 1 / CAST(:number AS int)", plan_lasts=FOR_LONG)
    with pytest.raises(DBAPIError, match="division by zero"):
        run_in(keeping, divide, number=0)
    assert run_in(keeping, divide, number=1) == [(1,)]


class Heard(cursor):
    """A cursor that remembers what was sent."""

    def execute(self, query, values=None):
        self.connection.notices.append(query)
        return super().execute(query, values)


def test_a_plan_that_depends_on_sizes_is_used_for_a_moment(keeping, monkeypatch):
    seconds = [100.0]
    monkeypatch.setattr("webapp.infra.postgres.prepared.time.monotonic", lambda: seconds[0])
    statement, info = Prepared.of("SELECT %(one)s::int", FOR_A_MOMENT), {}
    raw = keeping.raw_connection()
    raw.driver_connection.autocommit = True
    with raw.driver_connection.cursor(cursor_factory=Heard) as heard:
        discarded = []
        for step in (0.0, 0.2, 0.1, 0.2):
            seconds[0] += step
            raw.driver_connection.notices.clear()
            assert statement.run(heard, {"one": 1}, info)
            discarded.append("DISCARD PLANS" in raw.driver_connection.notices)
    raw.close()
    assert discarded == [False, False, True, False]
