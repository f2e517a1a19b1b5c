from __future__ import annotations

from uuid import uuid4

import pytest
from ending import complete, end_again, end_cancelled, end_last
from factories import (
    ERROR,
    LEASE,
    WORKER,
    age,
    attempts_of,
    claimed,
    completed,
    dead_lettered,
    letters_of,
    queued,
    row_of,
    tables,
)
from sqlalchemy import text

from webapp.dead_letters import store as dead_letters
from webapp.dead_letters.model import DeadLetterFilter
from webapp.dead_letters.store import move_to_dead_letters
from webapp.jobs import store
from webapp.jobs.control import ask_cancel, overdue_holders, requeue
from webapp.jobs.ends import status_after
from webapp.jobs.model import CancelAnswer
from webapp.jobs.states import AttemptOutcome
from webapp.queues import store as queue_store

FAILED, LOST, RELEASED = AttemptOutcome.FAILED, AttemptOutcome.LOST, AttemptOutcome.RELEASED


def asked_at(engine, job_id):
    with engine.connect() as connection:
        statement = text("SELECT cancel_requested_at FROM jobs WHERE id = :id")
        return connection.execute(statement, {"id": job_id}).scalar_one()


def asked(engine, **changes):
    """A job that runs and was asked to stop."""
    claim = claimed(engine, **changes)
    with engine.begin() as connection:
        assert ask_cancel(connection, claim.id) is CancelAnswer.ASKED
    return claim


def withdrawn(engine):
    """A job that was cancelled while it ran."""
    claim = asked(engine)
    with engine.begin() as connection:
        assert end_cancelled(connection, claim)
    return claim


def recorded(engine):
    """A job whose last attempt has failed, and which is not in the dead letter queue yet."""
    claim = claimed(engine)
    with engine.begin() as connection:
        assert end_last(connection, claim, FAILED, ERROR)
    return claim


def test_a_waiting_job_is_cancelled_at_once(engine):
    job = queued(engine, dispatched=True)
    with engine.begin() as connection:
        assert ask_cancel(connection, job.id) is CancelAnswer.CANCELLED
        assert store.claim(connection, [job.id], worker_id=WORKER, lease=LEASE) == []
    row = row_of(engine, job.id)
    assert (row.status, row.attempt) == ("cancelled", 0)
    assert row.finished_at == row.updated_at > row.created_at
    assert attempts_of(engine, job.id) == []


def test_a_running_job_is_asked_and_keeps_its_lease(engine):
    claim = claimed(engine)
    before = row_of(engine, claim.id)
    with engine.begin() as connection:
        assert ask_cancel(connection, claim.id) is CancelAnswer.ASKED
    row = row_of(engine, claim.id)
    assert (row.status, row.worker_id, row.finished_at) == ("processing", WORKER, None)
    assert row.lease_expires_at == before.lease_expires_at
    assert asked_at(engine, claim.id) == row.updated_at
    with engine.begin() as connection:
        assert store.renew(connection, [claim.id], workers=[WORKER], lease=LEASE) == {claim.id}


def test_the_first_request_is_the_one_that_is_kept(engine):
    claim = asked(engine)
    first = asked_at(engine, claim.id)
    with engine.begin() as connection:
        assert ask_cancel(connection, claim.id) is CancelAnswer.ASKED
    assert asked_at(engine, claim.id) == first


@pytest.mark.parametrize("make", [completed, dead_lettered, withdrawn])
def test_a_final_job_cannot_be_cancelled(engine, make):
    claim = make(engine)
    before = tables(engine)
    with engine.begin() as connection:
        assert ask_cancel(connection, claim.id) is CancelAnswer.NOTHING
        assert ask_cancel(connection, uuid4()) is CancelAnswer.NOTHING
        assert not end_cancelled(connection, claim)
    assert tables(engine) == before


def test_an_asked_attempt_ends_as_cancelled(engine):
    claim = withdrawn(engine)
    row = row_of(engine, claim.id)
    assert (row.status, row.attempt, row.retry_count) == ("cancelled", 1, 0)
    assert row.lease_expires_at is row.worker_id is row.result is None
    assert row.finished_at == row.updated_at
    (attempt,) = attempts_of(engine, claim.id)
    assert (attempt["attempt"], attempt["outcome"], attempt["worker_id"]) == (1, "cancelled", WORKER)
    assert attempt["started_at"] == row.last_attempt_at
    with engine.connect() as connection:
        assert status_after(connection, claim)


def test_an_attempt_that_no_one_asked_is_not_cancelled(engine):
    claim = claimed(engine)
    before = tables(engine)
    with engine.begin() as connection:
        assert not end_cancelled(connection, claim)
    assert tables(engine) == before


@pytest.mark.parametrize("outcome", [FAILED, LOST, RELEASED])
def test_a_job_that_was_asked_to_stop_is_not_run_again(engine, outcome):
    claim = asked(engine)
    with engine.begin() as connection:
        assert end_again(connection, claim, outcome, ERROR, delay=30)
    row = row_of(engine, claim.id)
    assert (row.status, row.attempt, row.retry_count, row.last_error) == ("cancelled", 1, 0, "E: broken")
    assert row.lease_expires_at is row.worker_id is None
    assert row.finished_at == row.updated_at
    assert [attempt["outcome"] for attempt in attempts_of(engine, claim.id)] == [outcome.value]


def test_work_that_is_done_completes_though_it_was_asked_to_stop(engine):
    claim = asked(engine)
    with engine.begin() as connection:
        assert complete(connection, claim, "1")
        assert not end_cancelled(connection, claim)
    assert row_of(engine, claim.id).status == "completed"


def test_the_last_failure_of_an_asked_job_cancels_it(engine):
    claim = asked(engine)
    with engine.begin() as connection:
        assert end_last(connection, claim, FAILED, ERROR) == "cancelled"
        assert move_to_dead_letters(connection, claim.id, claim.attempt) is None
        assert not end_cancelled(connection, claim)
    assert row_of(engine, claim.id).status == "cancelled"


def test_a_job_whose_last_failure_is_recorded_cannot_be_cancelled(engine, client):
    claim = recorded(engine)
    before = tables(engine)
    with engine.begin() as connection:
        assert ask_cancel(connection, claim.id) is CancelAnswer.NOTHING
    answer = client.post(f"/jobs/{claim.id}/cancel")
    assert answer.status_code == 409
    assert "has failed for the last time" in answer.json["detail"]
    assert client.get(f"/jobs/{claim.id}/explain").json["state"] == "failing"
    assert tables(engine) == before


def test_the_process_of_a_job_that_waits_for_its_dead_letter_is_left_alone(engine):
    """It runs another job by now; a cancel that came through before the end was recorded must not kill that one."""
    claim = recorded(engine)
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE jobs SET cancel_requested_at = now() - interval '1 hour' WHERE id = :id"),
            {"id": claim.id},
        )
        assert overdue_holders(connection, "host:1:boot/", grace=1) == []
    running = asked(engine)
    age(engine, "cancel_requested_at", 100, running.id)
    with engine.connect() as connection:
        assert overdue_holders(connection, "host:1:boot/", grace=1) == [WORKER]


def test_what_has_a_recorded_end_is_not_ended_again(engine):
    claim = recorded(engine)
    before = tables(engine)
    with engine.begin() as connection:
        assert not complete(connection, claim, "1")
        assert not end_again(connection, claim, RELEASED, None, delay=0)
        assert not end_last(connection, claim, LOST, ERROR)
        assert not end_cancelled(connection, claim)
    assert tables(engine) == before


@pytest.mark.parametrize("make", [dead_lettered, withdrawn])
def test_an_operator_queues_a_job_again_with_a_fresh_budget(engine, make):
    claim = make(engine)
    age(engine, "run_at", 1_000)
    with engine.begin() as connection:
        assert requeue(connection, claim.id)
        assert not requeue(connection, claim.id)
    row = row_of(engine, claim.id)
    assert (row.status, row.attempt, row.retry_count) == ("queued", 1, 0)
    assert row.run_at == row.updated_at
    assert row.dispatched_at is row.finished_at is row.last_error is row.result is None
    assert asked_at(engine, claim.id) is None
    with engine.begin() as connection:
        assert [hint.id for hint in queue_store.take_due(connection, "default", 10)] == [claim.id]
        (again,) = store.claim(connection, [claim.id], worker_id=WORKER, lease=LEASE)
    assert (again.attempt, again.retry_count) == (2, 0)


def test_the_budget_is_fresh_even_after_retries(engine):
    claim = claimed(engine, max_retries=1)
    with engine.begin() as connection:
        end_again(connection, claim, FAILED, ERROR, delay=0)
    with engine.begin() as connection:
        assert ask_cancel(connection, claim.id) is CancelAnswer.CANCELLED
        assert requeue(connection, claim.id)
    assert row_of(engine, claim.id).retry_count == 0


def test_a_requeue_closes_the_dead_letter_and_another_death_opens_a_new_one(engine):
    claim = dead_lettered(engine)
    with engine.begin() as connection:
        requeue(connection, claim.id)
        rows, _ = dead_letters.jobs(connection, DeadLetterFilter(), limit=10, offset=0)
        assert rows == []
        (again,) = store.claim(connection, [claim.id], worker_id=WORKER, lease=LEASE)
        end_last(connection, again, FAILED, ERROR)
        assert move_to_dead_letters(connection, again.id, again.attempt)
    letters = letters_of(engine, claim.id)
    assert [letter["requeued_at"] is None for letter in letters] == [False, True]


@pytest.mark.parametrize("make", [queued, claimed, completed])
def test_only_failed_and_cancelled_jobs_are_requeued(engine, make):
    job = make(engine)
    before = tables(engine)
    with engine.begin() as connection:
        assert not requeue(connection, job.id)
        assert not requeue(connection, uuid4())
    assert tables(engine) == before
