from __future__ import annotations

import dataclasses
import json
import threading
import time

import psycopg2
import pytest
from celery.exceptions import Ignore, SoftTimeLimitExceeded
from celery.exceptions import Retry as MessageDone
from ending import complete, end_again
from factories import ENDS, age, attempts_of, claimed, letters_of, queued, row_of, tables, waiting
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError

from tasks import execution, retrying
from tasks.attempt import settle
from tasks.dead_letter import move, move_job
from tasks.execution import execute_job
from tasks.runtime import child_name
from webapp.infra.postgres.engine import engine_options
from webapp.infra.telemetry.logs import bound_field
from webapp.jobs import Discard, Retry, Snooze, ends, store
from webapp.jobs.options import Terms
from webapp.jobs.states import AttemptOutcome


@pytest.fixture
def run(handle, engine):
    """Runs one attempt of a new job whose handler is `function`, and gives the job's id."""

    def once(function, *, payload=None, **changes):
        name = handle(function)
        row = queued(engine, task=name, payload={"task": name} | (payload or {}), **changes)
        again(row.id)
        return row.id

    return once


def again(job_id):
    """One message for a job. Whatever its outcome, the message must be over."""
    try:
        execute_job.run(str(job_id))
    except ENDS:
        return "retry"
    return None


def fail(payload, context):
    raise ValueError("broken")


def due(engine, job_id):
    age(engine, "run_at", 10_000, job_id)


def waits(engine, job_id):
    row = row_of(engine, job_id)
    return (row.run_at - row.updated_at).total_seconds()


def test_a_handler_gets_its_payload_and_what_it_should_know(run, engine):
    seen = {}

    def look(payload, context):
        seen.update(payload=payload, context=context, left=context.deadline - time.monotonic())
        seen.update({name: bound_field(name) for name in ("job_id", "attempt", "worker_id", "request_id")})
        return {"done": True}

    job_id = run(look, payload={"n": 1}, timeout=30.0, request_id="r")
    assert seen["payload"]["n"] == 1
    assert (seen["context"].job_id, seen["context"].attempt, seen["context"].retry_count) == (job_id, 1, 0)
    assert 29 < seen["left"] <= 30
    assert (seen["job_id"], seen["attempt"], seen["request_id"]) == (job_id, 1, "r")
    assert seen["worker_id"] == child_name()
    row = row_of(engine, job_id)
    assert (row.status, row.result, row.retry_count) == ("completed", {"done": True}, 0)
    assert [attempt["outcome"] for attempt in attempts_of(engine, job_id)] == ["completed"]
    assert bound_field("job_id") is None


def test_a_second_message_for_a_job_does_nothing(run, engine):
    calls = []
    job_id = run(lambda payload, context: calls.append(1))
    before = tables(engine)
    assert again(job_id) is None
    assert len(calls) == 1
    assert tables(engine) == before


def test_a_failed_attempt_is_tried_again_after_its_backoff(run, engine, redis):
    job_id = run(fail)
    row = row_of(engine, job_id)
    assert (row.status, row.attempt, row.retry_count, row.last_error) == (
        "queued",
        1,
        1,
        "ValueError: broken",
    )
    assert waits(engine, job_id) == 2.0
    (attempt,) = attempts_of(engine, job_id)
    assert (attempt["outcome"], attempt["error_type"]) == ("failed", "ValueError")
    assert 'raise ValueError("broken")' in attempt["traceback"]
    # No message waits for the retry to be due.
    assert redis.keys("*") == []


def test_the_message_of_a_failed_attempt_ends_as_a_retry(handle, engine):
    row = queued(engine, task=handle(fail))
    with pytest.raises(MessageDone):
        execute_job.run(str(row.id))


def test_celery_is_told_of_a_failure_where_there_is_no_other_try(handle, engine):
    task = handle(fail)
    states = [
        execute_job.apply([str(queued(engine, task=task, max_retries=retries).id)]).state
        for retries in (0, 1)
    ]
    assert states == ["FAILURE", "RETRY"]


def test_a_retry_is_not_run_before_it_is_due(run, engine):
    job_id = run(fail)
    assert again(job_id) is None
    assert row_of(engine, job_id).attempt == 1


def test_a_job_that_always_fails_gets_a_dead_letter_after_its_last_retry(run, engine, redis):
    job_id = run(fail)
    delays = []
    for _ in range(3):
        delays.append(waits(engine, job_id))
        due(engine, job_id)
        again(job_id)
    assert delays == [2.0, 4.0, 8.0]
    row = row_of(engine, job_id)
    assert (row.status, row.attempt, row.retry_count) == ("processing", 4, 3)
    assert [attempt["outcome"] for attempt in attempts_of(engine, job_id)] == ["failed"] * 4
    (message,) = map(json.loads, waiting(redis, "maintenance"))
    assert message["headers"]["task"] == "tasks.bury_job"
    move_job.run(str(job_id), 4)
    row = row_of(engine, job_id)
    assert (row.status, row.retry_count, row.last_error) == ("failed", 3, "ValueError: broken")
    (letter,) = letters_of(engine, job_id)
    assert (letter["reason"], letter["error_type"]) == ("exhausted", "ValueError")


def test_a_burial_that_comes_twice_late_or_from_nowhere_moves_nothing(run, engine):
    job_id = run(fail, max_retries=0)
    move_job.run(str(job_id), 7)
    assert row_of(engine, job_id).status == "processing"
    assert move(engine, job_id, 1)
    before = tables(engine)
    move_job.run(str(job_id), 1)
    assert not move(engine, job_id, 1)
    assert tables(engine) == before
    running = claimed(engine)
    move_job.run(str(running.id), 1)
    assert row_of(engine, running.id).status == "processing"


@pytest.mark.usefixtures("paused")
def test_when_the_burial_cannot_be_sent_the_worker_buries_the_job_itself(run, engine):
    job_id = run(fail, max_retries=0)
    assert row_of(engine, job_id).status == "failed"
    assert len(letters_of(engine, job_id)) == 1


def test_a_discarded_job_gets_a_dead_letter_without_another_try(run, engine):
    def discard(payload, context):
        raise Discard("no such address")

    job_id = run(discard)
    move_job.run(str(job_id), 1)
    row = row_of(engine, job_id)
    assert (row.status, row.attempt, row.retry_count) == ("failed", 1, 0)
    assert (letters_of(engine, job_id)[0]["reason"], row.last_error) == (
        "discarded",
        "Discard: no such address",
    )


@pytest.mark.parametrize(("after", "wait"), [(0, 0.0), (90, 90.0), (None, 2.0)])
def test_a_handler_may_say_when_it_wants_another_try(run, engine, after, wait):
    def busy(payload, context):
        raise Retry("busy", after=after)

    job_id = run(busy)
    row = row_of(engine, job_id)
    assert (row.status, row.retry_count, row.last_error) == ("queued", 1, "Retry: busy")
    assert waits(engine, job_id) == wait


def test_an_attempt_past_its_time_limit_has_failed_and_says_so(run, engine):
    def dawdle(payload, context):
        raise SoftTimeLimitExceeded

    job_id = run(dawdle, timeout=1.5)
    row = row_of(engine, job_id)
    assert (row.status, row.retry_count) == ("queued", 1)
    assert row.last_error == "JobTimeout: the attempt ran longer than its timeout of 1.5 s"
    assert attempts_of(engine, job_id)[0]["error_type"] == "webapp.jobs.errors.JobTimeout"


def test_a_job_whose_handler_this_worker_does_not_know_is_tried_again(engine):
    row = queued(engine, task="of-a-newer-release")
    assert again(row.id) == "retry"
    found = row_of(engine, row.id)
    assert (found.status, found.retry_count) == ("queued", 1)
    assert "no handler named 'of-a-newer-release'" in found.last_error


class Mute(Exception):
    def __str__(self):
        raise RuntimeError


@pytest.mark.parametrize(
    "error",
    [Mute(), ValueError("\x00\ud800" * 5_000), ValueError("x" * 5_000_000)],
    ids=["mute", "unprintable", "huge"],
)
def test_an_error_of_any_kind_is_kept(run, engine, error):
    def raising(payload, context):
        raise error

    job_id = run(raising)
    row = row_of(engine, job_id)
    assert (row.status, row.retry_count) == ("queued", 1)
    assert 0 < len(row.last_error) <= 25_000


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "result",
    [object(), float("nan"), "a\x00", "\ud800", "x" * 1_000_000, nested(900), nested(100_000), {1: 2}],
    ids=["object", "nan", "nul", "surrogate", "huge", "deep", "deeper", "integer key"],
)
def test_a_result_of_any_kind_completes_the_job(run, engine, result):
    started = time.monotonic()
    job_id = run(lambda payload, context: result)
    row = row_of(engine, job_id)
    assert row.status == "completed"
    assert (row.result is None) is bool(row.result_note)
    assert time.monotonic() - started < 2


def test_an_attempt_whose_lease_was_lost_drops_its_result(run, engine):
    def overtaken(payload, context):
        # Meanwhile the sweeper gave the job to another worker, which completed it.
        with engine.begin() as connection:
            (held,) = store.take_held_by(connection, [child_name()])
            end_again(connection, held, AttemptOutcome.LOST, None, delay=0)
            (other,) = store.claim(connection, [context.job_id], worker_id="other/1", lease=60)
            complete(connection, other, '"theirs"')
        return "mine"

    job_id = run(overtaken)
    row = row_of(engine, job_id)
    assert (row.status, row.attempt, row.result) == ("completed", 2, "theirs")
    assert [attempt["outcome"] for attempt in attempts_of(engine, job_id)] == ["lost", "completed"]


@pytest.mark.parametrize("retries", [0, 3])
def test_a_failure_whose_lease_was_lost_is_dropped_too(run, engine, redis, retries):
    def overtaken(payload, context):
        with engine.begin() as connection:
            (held,) = store.take_held_by(connection, [child_name()])
            end_again(connection, held, AttemptOutcome.RELEASED, None, delay=0)
        raise ValueError("late")

    job_id = run(overtaken, max_retries=retries)
    row = row_of(engine, job_id)
    assert (row.status, row.attempt, row.retry_count, row.last_error) == ("queued", 1, 0, None)
    assert waiting(redis, "maintenance") == []


def test_a_job_that_cannot_be_claimed_is_left_to_the_dispatcher(engine, parts, monkeypatch, closed_port):
    row = queued(engine)
    unreachable = f"postgresql+psycopg2://djps:djps@127.0.0.1:{closed_port}/djps"
    away = dataclasses.replace(
        parts,
        engine=create_engine(unreachable, **engine_options("djps-worker", pool_size=1)),
        settings=parts.settings.model_copy(update={"stuck_job_threshold": 1.0}),
    )
    monkeypatch.setattr(execution, "runtime", lambda: away)
    with pytest.raises(Ignore):
        execute_job.run(str(row.id))
    assert row_of(engine, row.id) == row


WAITING = text(
    "SELECT pid FROM pg_stat_activity"
    " WHERE application_name = 'djps-worker' AND wait_event_type = 'Lock' AND datname = current_database()"
)


@pytest.mark.parametrize("outcome", ["completed", "queued"])
def test_finished_work_is_settled_once_the_database_is_back(handle, engine, eventually, outcome):
    """The connection is cut while the end of the attempt is being written."""
    locked = threading.Event()
    with engine.connect() as blocker:

        def work(payload, context):
            blocker.execute(text("LOCK TABLE job_attempts IN ACCESS EXCLUSIVE MODE"))
            locked.set()
            if outcome == "queued":
                raise ValueError("broken")
            return 1

        row = queued(engine, task=handle(work))
        thread = threading.Thread(target=again, args=(row.id,))
        thread.start()
        assert locked.wait(10)
        pid = eventually(lambda: blocker.execute(WAITING).scalar())
        blocker.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
        blocker.rollback()
    thread.join(20)
    found = row_of(engine, row.id)
    assert (found.status, found.attempt) == (outcome, 1)
    assert len(attempts_of(engine, row.id)) == 1


def quick(parts):
    """Parts whose lease is short, so that giving up takes no time."""
    return dataclasses.replace(parts, settings=parts.settings.model_copy(update={"stuck_job_threshold": 0}))


def away(*_):
    raise OperationalError("SELECT 1", {}, psycopg2.OperationalError("away"))


def test_settling_is_given_up_before_the_sweeper_may_own_the_job(engine, parts, monkeypatch):
    claim = claimed(engine)
    monkeypatch.setattr(ends, "complete_many", away)
    assert not settle._settle(quick(parts), ends.completed(claim, None))
    assert row_of(engine, claim.id).status == "processing"


def test_a_commit_whose_answer_was_lost_counts_as_done(engine, parts, monkeypatch):
    monkeypatch.setattr(retrying, "PAUSE", 0.0)
    claim = claimed(engine)
    real = ends.complete_many

    def write(connection, given):
        with engine.begin() as another:
            ended = real(another, given)
        if ended:
            away()
        return ended

    monkeypatch.setattr(ends, "complete_many", write)
    assert settle._settle(parts, ends.completed(claim, None))
    assert row_of(engine, claim.id).status == "completed"


def test_a_time_limit_that_strikes_while_settling_does_not_lose_the_result(engine, parts, monkeypatch):
    monkeypatch.setattr(retrying, "PAUSE", 0.0)
    claim = claimed(engine)
    strikes = iter([True])

    real = ends.complete_many

    def write(connection, given):
        if next(strikes, False):
            raise SoftTimeLimitExceeded
        return real(connection, given)

    monkeypatch.setattr(ends, "complete_many", write)
    assert settle._settle(parts, ends.completed(claim, "1"))
    assert row_of(engine, claim.id).status == "completed"


def test_a_message_with_no_job_does_nothing(engine):
    assert again("019d0000-0000-7000-8000-000000000000") is None
    assert tables(engine) == []


@pytest.mark.parametrize("args", ["not-a-uuid", ""])
def test_a_forged_message_is_thrown_away(engine, args):
    with pytest.raises(Ignore):
        execute_job.run(args)
    assert tables(engine) == []


def test_a_snoozed_job_comes_back_and_has_used_no_retry(run, engine):
    answers = [Snooze(30), Snooze(0), None]

    def later(payload, context):
        error = answers.pop(0)
        if error:
            raise error
        return {"attempt": context.attempt, "retries": context.retry_count}

    job_id = run(later, max_retries=0)
    assert row_of(engine, job_id).status == "queued"
    assert waits(engine, job_id) == pytest.approx(30, abs=0.1)
    for _ in range(2):
        due(engine, job_id)
        again(job_id)
    row = row_of(engine, job_id)
    assert (row.status, row.retry_count, row.last_error) == ("completed", 0, None)
    assert row.result == {"attempt": 3, "retries": 0}
    ended = [(one["attempt"], one["outcome"], one["error_type"]) for one in attempts_of(engine, job_id)]
    assert ended == [(1, "snoozed", None), (2, "snoozed", None), (3, "completed", None)]


def test_a_snooze_after_a_failure_keeps_what_failed(run, engine):
    answers = [ValueError("broken"), Snooze(1)]

    def later(payload, context):
        raise answers.pop(0)

    job_id = run(later)
    due(engine, job_id)
    again(job_id)
    row = row_of(engine, job_id)
    assert (row.status, row.retry_count, row.last_error, row.attempt) == (
        "queued",
        1,
        "ValueError: broken",
        2,
    )


def test_a_snooze_whose_lease_was_lost_changes_nothing(run, engine):
    def slow(payload, context):
        with engine.begin() as connection:
            connection.execute(text("UPDATE jobs SET attempt = attempt + 1"))
        raise Snooze(30)

    job_id = run(slow)
    assert row_of(engine, job_id).status == "processing"
    assert attempts_of(engine, job_id) == []


@pytest.mark.parametrize(
    ("backoff", "wait"), [("[7, 70]", 7), ('{"base": 5}', 5), ('{"max": 1}', 1), (None, 2)]
)
def test_a_retry_waits_as_the_job_itself_says(run, engine, backoff, wait):
    job_id = run(fail, terms=Terms(backoff=backoff))
    assert waits(engine, job_id) == pytest.approx(wait, abs=0.1)
