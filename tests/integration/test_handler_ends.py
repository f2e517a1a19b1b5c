"""Whatever a handler raises or returns, its attempt ends at once and says how; alone and in a chunk."""

from __future__ import annotations

import asyncio
import sys
import time
from datetime import timedelta
from decimal import Decimal

import pytest
from billiard import common
from ending import end_last
from factories import ENDS, attempts_of, claimed, ended, letters_of, queued, row_of
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from tasks.chunk import execute_jobs
from tasks.dead_letter import move
from tasks.execution import execute_job
from webapp.infra.postgres.database_errors import never_works
from webapp.jobs import Cancelled, Discard, Retry, Snooze, ends
from webapp.jobs.error_report import ErrorReport
from webapp.jobs.options import MAX_DELAY
from webapp.jobs.states import AttemptOutcome


def alone(job_id):
    try:
        execute_job.run(str(job_id))
    except ENDS:
        return


def in_a_chunk(job_id):
    ended(execute_jobs, [str(job_id)])


@pytest.fixture(params=[alone, in_a_chunk])
def end(request, handle, engine):
    """Runs one attempt of a job whose handler is `function`, quickly; gives the job's row and the attempt's."""

    def run(function, **changes):
        row = queued(engine, task=handle(function), **changes)
        began = time.monotonic()
        request.param(row.id)
        assert time.monotonic() - began < 5
        found = attempts_of(engine, row.id)
        return row_of(engine, row.id), found[-1] if found else None

    return run


def raising(error):
    def handler(payload, context):
        raise error

    return handler


class OfAnExtension(BaseException):
    pass


class Unreadable(BaseException):
    def __str__(self):
        raise SystemExit


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (asyncio.CancelledError(), "asyncio.exceptions.CancelledError", ""),
        (GeneratorExit("x"), "GeneratorExit", "x"),
        (SystemExit("good bye"), "SystemExit", "good bye"),
        (SystemExit(3), "SystemExit", "3"),
        (SystemExit(), "SystemExit", ""),
        (KeyboardInterrupt("x"), "KeyboardInterrupt", "x"),
        (OfAnExtension("x"), f"{__name__}.OfAnExtension", "x"),
        (Unreadable(), f"{__name__}.Unreadable", "(its text could not be read: SystemExit)"),
        (
            BaseExceptionGroup("g", [SystemExit("x")]),
            "BaseExceptionGroup",
            "g (1 sub-exception): [SystemExit: x]",
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_an_error_that_is_no_exception_is_a_failed_attempt(end, error, kind, message):
    row, attempt = end(raising(error))
    assert (row.status, row.retry_count) == ("queued", 1)
    assert (attempt["outcome"], attempt["error_type"], attempt["error_message"]) == ("failed", kind, message)
    assert "in handler\n    raise error" in attempt["traceback"]
    assert row.last_error.startswith(kind.rpartition(".")[2])


class Untouchable(Exception):
    @property
    def __cause__(self):
        raise RuntimeError("do not look")


class Shapeless(ExceptionGroup):
    @property
    def exceptions(self):
        raise RuntimeError("do not look")


@pytest.mark.parametrize(
    "error", [Untouchable("x"), Shapeless("g", [ValueError("x")])], ids=["cause", "members"]
)
def test_an_error_that_cannot_be_looked_at_is_a_failed_attempt_all_the_same(end, error):
    row, attempt = end(raising(error))
    assert (row.status, row.retry_count, attempt["outcome"]) == ("queued", 1, "failed")
    assert row.last_error == f"{type(error).__name__}: (it could not be described: RuntimeError)"


def test_a_job_that_leaves_python_by_sys_exit_has_failed(end):
    row, _ = end(lambda payload, context: sys.exit("no mail today"))
    assert row.last_error == "SystemExit: no mail today"


def test_a_process_that_was_told_to_end_is_not_held_up(engine, handle, monkeypatch):
    """billiard's own signal handler raises SystemExit, after it has said so."""

    def told(payload, context):
        monkeypatch.setattr(common, "_should_have_exited", [True])
        raise SystemExit(-241)

    row = queued(engine, task=handle(told))
    with pytest.raises(SystemExit):
        execute_job.run(str(row.id))
    assert row_of(engine, row.id).status == "processing"


WAITS = [5, 5.0, Decimal(5), MAX_DELAY, 0]
IMPOSSIBLE = [1.8e12, 1e15, 10**400, MAX_DELAY + 1, -1, float("nan"), float("inf"), Decimal("NaN"), "5", True,
              timedelta(seconds=5), b"5", [5], 1j]  # fmt: skip


@pytest.mark.parametrize("seconds", WAITS, ids=repr)
@pytest.mark.parametrize("ask", [lambda n: Retry(after=n), Snooze], ids=["retry", "snooze"])
def test_a_wait_within_its_bounds_is_kept(end, ask, seconds):
    def later(payload, context):
        raise ask(seconds)

    row, _ = end(later)
    assert row.status == "queued"
    assert (row.run_at - row.updated_at).total_seconds() == pytest.approx(float(seconds), abs=0.1)


@pytest.mark.parametrize("seconds", IMPOSSIBLE, ids=lambda value: repr(value)[:20])
@pytest.mark.parametrize(("ask", "name"), [(lambda n: Retry(after=n), "after"), (Snooze, "seconds")])
def test_an_impossible_wait_is_an_error_of_the_handler_that_says_so(end, client, ask, name, seconds):
    def later(payload, context):
        raise ask(seconds)

    row, _ = end(later)
    assert (row.status, row.retry_count) == ("queued", 1)
    assert row.last_error.startswith(f"ValueError: {name} must be a number from 0 to 3.15576e+09; given: ")
    assert (row.run_at - row.updated_at).total_seconds() == 2
    assert client.get(f"/jobs/{row.id}").status_code == 200


class Forgetful(Retry):
    def __init__(self):
        pass


class Asleep(Snooze):
    def __init__(self):
        pass


@pytest.mark.parametrize("after", [1e15, "soon", None, -1])
def test_a_wait_that_was_put_there_later_is_checked_as_well(end, after):
    error = Retry("busy")
    error.after = after
    row, _ = end(raising(error))
    assert (row.status, (row.run_at - row.updated_at).total_seconds()) == ("queued", 2)


@pytest.mark.parametrize("error", [Forgetful(), Asleep()])
def test_a_subclass_that_forgot_its_wait_is_a_failure_like_any(end, error):
    row, attempt = end(raising(error))
    assert (row.status, row.retry_count, attempt["outcome"]) == ("queued", 1, "failed")


class Circle(dict):
    def items(self):
        raise KeyError("no items")


class Leaving(dict):
    def items(self):
        raise SystemExit("from items")


def test_a_result_that_breaks_while_it_is_read_is_dropped_or_fails_the_attempt(end):
    row, _ = end(lambda payload, context: Circle(a=1))
    assert (row.result, row.result_note) == (None, "not JSON (KeyError)")
    row, _ = end(lambda payload, context: Leaving(a=1))
    assert row.last_error == "SystemExit: from items"


@pytest.mark.parametrize("around", [lambda one: one, lambda one: [one]])
def test_a_coroutine_as_a_result_fails_the_attempt(end, around):
    async def send():
        raise AssertionError("it does not run")

    row, _ = end(lambda payload, context: around(send()))
    assert row.status == "queued"
    assert row.last_error == (
        "NeverRan: the handler returned a coroutine, whose work was not done; await it, or return its result"
    )


@pytest.mark.parametrize(
    ("error", "outcome", "status"),
    [
        (ExceptionGroup("g", [Snooze(30)]), "snoozed", "queued"),
        (ExceptionGroup("g", [Retry("busy", after=30)]), "failed", "queued"),
        (ExceptionGroup("g", [Discard("no use")]), "failed", "processing"),
        (ExceptionGroup("g", [Cancelled()]), "failed", "queued"),
    ],
)
def test_a_group_that_says_one_thing_is_done_as_it_says(end, error, outcome, status):
    row, attempt = end(raising(error))
    assert (attempt["outcome"], row.status) == (outcome, status)
    if status == "queued" and not isinstance(error.exceptions[0], Cancelled):
        assert (row.run_at - row.updated_at).total_seconds() == pytest.approx(30, abs=0.1)


def refused(connection, *_):
    """What PostgreSQL says to a value that no time can hold: class 22, data exception."""
    connection.execute(text("SELECT now() + make_interval(secs => 1e15)"))


def test_a_result_that_cannot_be_stored_fails_the_attempt_at_once(engine, handle, monkeypatch):
    for name in ("end_attempts", "complete_many"):
        real = getattr(ends, name)
        monkeypatch.setattr(
            ends,
            name,
            lambda connection, given, real=real: (
                refused(connection)
                if any(end.result == '"bad"' for end in given)
                else real(connection, given)
            ),
        )
    name = handle(lambda payload, context: payload["n"])
    rows = [queued(engine, task=name, payload={"task": name, "n": n}) for n in ("a", "bad", "c", "bad")]
    began = time.monotonic()
    ended(execute_jobs, [str(row.id) for row in rows[:3]])
    alone(rows[3].id)
    assert time.monotonic() - began < 2
    assert [row_of(engine, row.id).status for row in rows] == ["completed", "queued", "completed", "queued"]
    for row in (rows[1], rows[3]):
        found = row_of(engine, row.id)
        assert (
            found.last_error == "NotStorable: how the attempt ended cannot be stored (DatetimeFieldOverflow)"
        )
        assert found.retry_count == 1


def test_a_failure_that_cannot_be_stored_is_stored_as_that(engine, handle, monkeypatch):
    real = ends.end_attempts

    def end(connection, given):
        return refused(connection) if given[0].error.type == "ValueError" else real(connection, given)

    monkeypatch.setattr(ends, "end_attempts", end)
    row = queued(engine, task=handle(raising(ValueError("broken"))))
    began = time.monotonic()
    alone(row.id)
    assert time.monotonic() - began < 2
    assert row_of(engine, row.id).last_error.startswith("NotStorable: how the attempt ended cannot be stored")


@pytest.mark.parametrize(
    ("statement", "never"),
    [
        ("SELECT now() + make_interval(secs => 1e15)", True),
        ("SELECT '\\u0000'::jsonb ->> 0", True),
        ("SELECT 'x'::int", True),
        ("INSERT INTO idempotency_keys (key, fingerprint, job_id, expires_at) VALUES ('', '', gen_random_uuid(), now())", True),
        ("SELECT 1/0", True),
        ("SELECT * FROM no_such_table", True),
        ("SET LOCAL statement_timeout = 1; SELECT pg_sleep(1)", False),
        ("SELECT pg_terminate_backend(pg_backend_pid())", False),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_value_is_told_from_what_may_pass(engine, statement, never):
    with pytest.raises(DBAPIError) as caught, engine.begin() as connection:
        connection.exec_driver_sql(statement)
    assert never_works(caught.value) is never


class NoAddress(Discard):
    pass


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (Discard("no use"), "discarded"),
        (NoAddress("no use"), "discarded"),
        (ExceptionGroup("g", [NoAddress("no use")]), "discarded"),
        (ValueError("broken"), "exhausted"),
    ],
)
def test_a_dead_letter_has_the_reason_that_the_attempt_has(end, engine, client, error, reason):
    row, attempt = end(raising(error), max_retries=0)
    assert attempt["death_reason"] == reason
    assert move(engine, row.id, 1)
    assert letters_of(engine, row.id)[0]["reason"] == reason
    assert [letter["job_id"] for letter in client.get(f"/dlq/letters?reason={reason}").json["items"]] == [
        str(row.id)
    ]


@pytest.mark.parametrize(
    ("kind", "reason"), [("webapp.jobs.errors.Discard", "discarded"), ("E", "exhausted")]
)
def test_an_attempt_that_an_earlier_release_recorded_is_told_by_its_class(engine, kind, reason):
    claim = claimed(engine)
    with engine.begin() as connection:
        end_last(connection, claim, AttemptOutcome.FAILED, ErrorReport(kind, "x"))
        connection.execute(text("UPDATE job_attempts SET death_reason = NULL"))
    assert move(engine, claim.id, 1)
    assert letters_of(engine, claim.id)[0]["reason"] == reason
