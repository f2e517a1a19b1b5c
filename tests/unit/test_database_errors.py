"""What PostgreSQL's errors mean, and what may be said of them."""

from __future__ import annotations

import io
import json
import logging

import psycopg2
import pytest
from psycopg2 import errors
from sqlalchemy.exc import DBAPIError, InvalidRequestError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from webapp.infra.postgres import database_errors
from webapp.infra.postgres.database_errors import Trouble, trouble_of, trouble_of_code
from webapp.infra.postgres.deadlines import Away
from webapp.infra.telemetry import logs

SECRET = "sesame-4711"


@pytest.mark.parametrize(
    ("sqlstate", "trouble"),
    [
        ("25006", Trouble.READ_ONLY),
        ("57P01", Trouble.AWAY),
        ("57P02", Trouble.AWAY),
        ("57P03", Trouble.AWAY),
        ("57P05", Trouble.AWAY),
        ("57014", Trouble.SLOW),
        ("53300", Trouble.FULL),
        ("53100", Trouble.FULL),
        ("53200", Trouble.FULL),
        ("08000", Trouble.AWAY),
        ("08006", Trouble.AWAY),
        ("08P01", Trouble.AWAY),
        ("25P03", Trouble.AWAY),
        ("25P04", Trouble.AWAY),
        ("40001", Trouble.BUSY),
        ("40P01", Trouble.BUSY),
        ("55P03", Trouble.BUSY),
        ("55006", Trouble.BUSY),
        ("28P01", Trouble.REFUSED),
        ("28000", Trouble.REFUSED),
        ("3D000", Trouble.REFUSED),
        ("42501", Trouble.REFUSED),
        ("57P04", Trouble.REFUSED),
        ("58030", Trouble.AWAY),
        ("22P02", Trouble.DEFECT),
        ("22P05", Trouble.DEFECT),
        ("23505", Trouble.DEFECT),
        ("23514", Trouble.DEFECT),
        ("42P01", Trouble.DEFECT),
        ("25P02", Trouble.DEFECT),
        ("XX000", Trouble.DEFECT),
        ("", Trouble.DEFECT),
    ],
)
def test_a_code_says_what_is_the_matter(sqlstate, trouble):
    assert trouble_of_code(sqlstate) is trouble
    assert trouble_of_code(sqlstate, connection=True) is trouble


def wrapped(orig, *, gone=False):
    return DBAPIError.instance(
        "INSERT INTO jobs", {"payload": SECRET}, orig, psycopg2.Error, connection_invalidated=gone
    )


@pytest.mark.parametrize(
    ("error", "trouble"),
    [
        (psycopg2.OperationalError("server closed the connection unexpectedly"), Trouble.AWAY),
        (psycopg2.InterfaceError("connection already closed"), Trouble.AWAY),
        (psycopg2.DatabaseError("error with status PGRES_TUPLES_OK"), Trouble.AWAY),
        (Away("PostgreSQL did not answer in time"), Trouble.AWAY),
        (psycopg2.ProgrammingError("can't adapt type"), Trouble.DEFECT),
        (psycopg2.DataError("no code"), Trouble.DEFECT),
        (PoolTimeout(), Trouble.NO_CONNECTION),
        (InvalidRequestError("ours"), Trouble.DEFECT),
        (ValueError("ours"), Trouble.DEFECT),
    ],
)
def test_an_error_without_a_code_is_judged_by_its_class(error, trouble):
    assert trouble_of(error) is trouble
    if isinstance(error, psycopg2.Error):
        assert trouble_of(wrapped(error)) is trouble


def test_a_connection_that_was_given_up_was_broken():
    assert trouble_of(wrapped(psycopg2.ProgrammingError("who knows"), gone=True)) is Trouble.AWAY


def logged(log):
    """The line that `log` writes."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logs.JsonFormatter())
    logger = logging.getLogger("test.database_errors")
    logger.addHandler(handler)
    try:
        log(logger)
    finally:
        logger.removeHandler(handler)
    return json.loads(stream.getvalue())


def fail(how):
    try:
        try:
            raise errors.UniqueViolation(f"DETAIL:  Key (key)=({SECRET}) already exists.")
        except psycopg2.Error as error:
            raise how(error) from error
    except Exception as error:  # noqa: BLE001 - it is what is tested
        return error


@pytest.mark.parametrize(
    "error",
    [
        fail(wrapped),
        fail(lambda _: RuntimeError("the store failed")),
        fail(lambda error: ExceptionGroup("several", [error, ValueError("another")])),
        OperationalError("INSERT", {"payload": SECRET}, errors.InvalidTextRepresentation(SECRET)),
    ],
)
def test_a_traceback_in_a_log_holds_nothing_that_the_database_quoted(error):
    line = logged(lambda logger: logger.error("it failed", exc_info=error))
    assert SECRET not in json.dumps(line)
    assert "Violation" in line["exc_info"] or "InvalidTextRepresentation" in line["exc_info"]
    assert type(error).__name__ in line["exc_info"]


def test_an_error_within_a_sentence_is_described_as_well():
    line = logged(lambda logger: logger.error("failed: %s, %d", fail(wrapped), 1))
    assert SECRET not in json.dumps(line)
    assert line["message"].startswith("failed: UniqueViolation")


@pytest.mark.parametrize(
    "log",
    [
        lambda logger, error: logger.error(error),
        lambda logger, error: logger.error("failed", extra={"error": error}),
        lambda logger, error: logger.error("failed", extra={"error": error}, exc_info=error),
        lambda logger, error: logger.error("%(error)s", {"error": error}),
    ],
)
def test_an_error_in_any_part_of_a_call_is_described(log):
    line = logged(lambda logger: log(logger, fail(wrapped)))
    assert SECRET not in json.dumps(line)
    assert "UniqueViolation" in json.dumps(line)


def test_other_tracebacks_are_left_as_python_writes_them():
    line = logged(lambda logger: logger.error("it failed", exc_info=ValueError("what it says")))
    assert line["exc_info"].endswith("ValueError: what it says")


def test_a_circle_of_errors_ends():
    one, other = ValueError("one"), psycopg2.Error(SECRET)
    one.__cause__, other.__cause__ = other, one
    assert database_errors.holds_database_error(one)
    assert SECRET not in database_errors.traceback_of(one)
