"""Statements of the hot path go round SQLAlchemy; their errors and connections are treated as it treats them."""

from __future__ import annotations

from uuid import uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError

from webapp.infra.postgres.engine import Statement, in_one_trip


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
