"""What a worker does when the database's answer to a claim, a hand-back or a settle is lost, although its commit came through."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import psycopg2
import pytest
from factories import attempts_of, claimed, queued, row_of
from sqlalchemy.exc import OperationalError

from tasks import retrying
from tasks.attempt import claims, release, settle
from tasks.chunk import Chunk, execute_due, execute_jobs
from tasks.execution import execute_job
from tasks.runtime import child_name
from webapp.jobs import ends, store
from webapp.queues import tickets


@pytest.fixture
def lost_answers(monkeypatch) -> Callable[..., None]:
    """Loses the answers to a statement so many times: it is done and committed, and its caller hears of a broken connection."""
    monkeypatch.setattr(retrying, "PAUSE", 0.0)

    def lose(room: object, name: str, times: int = 1) -> None:
        real, left = getattr(room, name), iter(range(times))

        def ask(connection: object, *args: object, **more: object) -> object:
            found = real(connection, *args, **more)
            if next(left, None) is not None:
                raise OperationalError(name, {}, psycopg2.OperationalError("the connection broke"))
            return found

        monkeypatch.setattr(room, name, ask)

    return lose


@pytest.mark.parametrize("times", [1, 3])
def test_a_claim_whose_answer_was_lost_is_this_processs_claim(engine, handle, lost_answers, times):
    runs: list[object] = []
    name = handle(lambda payload, context: runs.append(context.attempt))
    row = queued(engine, task=name, max_retries=0)
    lost_answers(store, "claim", times)
    execute_job.run(str(row.id))
    assert runs == [1]
    assert row_of(engine, row.id).status == "completed"
    assert [one["outcome"] for one in attempts_of(engine, row.id)] == ["completed"]


def test_a_chunk_whose_claim_was_answered_to_no_one_is_run(engine, handle, lost_answers):
    name = handle(lambda payload, context: None)
    rows = [queued(engine, task=name, max_retries=0) for _ in range(5)]
    lost_answers(store, "claim")
    execute_jobs.run([str(row.id) for row in rows])
    assert {row_of(engine, row.id).status for row in rows} == {"completed"}
    assert all(len(attempts_of(engine, row.id)) == 1 for row in rows)


@pytest.mark.parametrize("name", ["claim_due", "end_and_claim"])
def test_a_ticket_whose_claim_was_answered_to_no_one_runs_what_it_has_claimed(
    engine, handle, lost_answers, name
):
    runs: list[object] = []
    task = handle(lambda payload, context: runs.append(context.job_id), chunk=3)
    rows = [queued(engine, task=task, max_retries=0) for _ in range(9)]
    lost_answers(tickets, name)
    execute_due.run("default", task, 300.0)
    assert sorted(map(str, runs)) == sorted(str(row.id) for row in rows)
    assert {row_of(engine, row.id).status for row in rows} == {"completed"}
    assert all(len(attempts_of(engine, row.id)) == 1 for row in rows)


def test_what_was_given_up_is_not_taken_for_a_new_claim(engine, handle, parts, lost_answers, monkeypatch):
    """Its effect has happened once under this attempt; the sweeper gives it another."""
    runs: list[object] = []
    name = handle(lambda payload, context: runs.append(context.attempt))
    old = claimed(engine, task=name, worker_id=child_name())
    monkeypatch.setattr(retrying, "SHARE", 0.0)

    def away(*_: object) -> None:
        raise OperationalError("settle", {}, psycopg2.OperationalError("away"))

    with monkeypatch.context() as patch:
        patch.setattr(ends, "complete_many", away)
        assert settle._settle(parts, ends.completed(old, None)) is None
    monkeypatch.setattr(retrying, "SHARE", 0.75)
    lost_answers(store, "claim")
    execute_job.run(str(old.id))
    assert runs == []
    assert row_of(engine, old.id).status == "processing"


def test_jobs_that_could_not_be_handed_back_at_first_are_handed_back(
    engine, handle, parts, lost_answers, eventually
):
    name = handle(lambda payload, context: time.sleep(0.3))
    rows = [queued(engine, task=name) for _ in range(4)]
    lost_answers(ends, "end_attempts", 2)
    with engine.begin() as connection:
        claims = store.claim(connection, [row.id for row in rows], worker_id=child_name(), lease=60.0)
    Chunk(parts, claims, window=0.05).run()
    eventually(
        lambda: sorted(row_of(engine, row.id).status for row in rows) == ["completed"] + 3 * ["queued"]
    )


def test_jobs_that_are_yet_to_be_handed_back_are_not_run(engine, parts, eventually, monkeypatch, caplog):
    monkeypatch.setattr(retrying, "SHARE", 0.0)
    monkeypatch.setattr(release, "AGAIN_AFTER", 0.0)
    real, is_away = ends.end_attempts, threading.Event()
    is_away.set()

    def end_attempts(*given: Any) -> Any:
        if is_away.is_set():
            raise OperationalError("release", {}, psycopg2.OperationalError("away"))
        return real(*given)

    monkeypatch.setattr(ends, "end_attempts", end_attempts)
    rows = [queued(engine) for _ in range(2)]
    with engine.begin() as connection:
        held = store.claim(connection, [row.id for row in rows], worker_id=child_name(), lease=60.0)
    Chunk(parts, held).hand_back()
    assert "jobs that had not begun could not be handed back, it will be tried again" in caplog.messages
    with engine.connect() as connection:
        assert claims._claimed_before(connection) == []
    is_away.clear()
    eventually(lambda: {row_of(engine, row.id).status for row in rows} == {"queued"})


def test_a_statement_that_can_never_work_is_not_tried_again(monkeypatch):
    monkeypatch.setattr(retrying, "PAUSE", 60.0)

    def broken() -> None:
        raise ValueError("A string literal cannot contain NUL (0x00) characters.")

    with pytest.raises(ValueError, match="NUL"):
        retrying.until_database_answers(broken, 60.0, "not yet")
