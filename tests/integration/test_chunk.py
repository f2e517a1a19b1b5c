"""Chunks on real servers: every job is run as if it had come alone, and none waits behind a slow one."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import threading
import time
from base64 import b64decode

import pytest
from celery.exceptions import Retry as MessageDone
from factories import age, attempts_of, ended, letters_of, queued, row_of, waiting
from sqlalchemy import text

from tasks import chunk as chunk_module
from tasks import retrying
from tasks.attempt import pace, release
from tasks.chunk import Chunk, execute_jobs, settle_many
from tasks.execution import JobsFailed
from tasks.runtime import child_name
from webapp.infra.broker.pace import LARGEST_CHUNK
from webapp.infra.postgres import deadlines
from webapp.jobs import ends, store
from webapp.jobs.ends import completed
from webapp.jobs.errors import Discard, Retry, Snooze


def claims_of(engine, *rows):
    with engine.begin() as connection:
        found = store.claim(connection, [row.id for row in rows], worker_id=child_name(), lease=60.0)
    return sorted(found, key=lambda claim: [row.id for row in rows].index(claim.id))


def outcomes(engine, row):
    """Number and outcome of every attempt of a job."""
    return [(one["attempt"], one["outcome"]) for one in attempts_of(engine, row.id)]


def statuses(engine, rows):
    return [row_of(engine, row.id).status for row in rows]


def waiting_for_a_row(engine):
    with engine.connect() as connection:
        return connection.execute(
            text("SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'")
        ).scalar_one()


def test_the_jobs_of_a_message_complete_once_each_in_its_order(engine, handle):
    seen = []
    name = handle(lambda payload, context: seen.append(context.job_id) or {"n": payload["n"]})
    rows = [queued(engine, task=name, payload={"task": name, "n": n}) for n in range(20)]
    ended(execute_jobs, [str(row.id) for row in reversed(rows)])
    assert seen == [row.id for row in reversed(rows)]
    for number, row in enumerate(rows):
        found = row_of(engine, row.id)
        assert (found.status, found.attempt, found.result) == ("completed", 1, {"n": number})
        assert outcomes(engine, row) == [(1, "completed")]


def test_each_attempt_has_times_of_its_own(engine, handle):
    name = handle(lambda payload, context: time.sleep(0.05))
    rows = [queued(engine, task=name) for _ in range(3)]
    ended(execute_jobs, [str(row.id) for row in rows])
    with engine.connect() as connection:
        times = connection.execute(
            text("SELECT started_at, ended_at FROM attempts ORDER BY started_at")
        ).all()
    assert all((ended - started).total_seconds() >= 0.05 for started, ended in times)
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(times))


def test_messages_that_come_twice_or_are_stale_run_nothing(engine, handle):
    runs = []
    name = handle(lambda payload, context: runs.append(1))
    rows = [queued(engine, task=name) for _ in range(3)]
    later = queued(engine, task=name)
    age(engine, "run_at", -60, later.id)
    message = [str(row.id) for row in (*rows, later)]
    ended(execute_jobs, message)
    ended(execute_jobs, message)
    assert len(runs) == 3
    assert statuses(engine, [later]) == ["queued"]


def test_failures_are_settled_one_by_one_and_the_others_complete(engine, handle):
    def sometimes(payload, context):
        if payload["n"] == 1:
            raise RuntimeError("odd one out")
        if payload["n"] == 2:
            raise Discard("no use")

    name = handle(sometimes)
    rows = [queued(engine, task=name, payload={"task": name, "n": n}) for n in range(4)]
    ended(execute_jobs, [str(row.id) for row in rows])
    assert statuses(engine, [rows[0], rows[3]]) == ["completed", "completed"]
    again = row_of(engine, rows[1].id)
    assert (again.status, again.retry_count, again.last_error) == ("queued", 1, "RuntimeError: odd one out")
    assert outcomes(engine, rows[1]) == [(1, "failed")]
    assert outcomes(engine, rows[2]) == [(1, "failed")]


def test_a_job_past_its_time_limit_is_stopped_and_the_next_one_runs(engine, handle):
    def slow(payload, context):
        time.sleep(payload["seconds"])

    name = handle(slow, max_retries=0)
    rows = [
        queued(engine, task=name, payload={"task": name, "seconds": seconds}, timeout=0.2, max_retries=3)
        for seconds in (10, 0)
    ]
    began = time.monotonic()
    ended(execute_jobs, [str(row.id) for row in rows])
    assert time.monotonic() - began < 5
    assert statuses(engine, rows) == ["queued", "completed"]
    assert "0.2" in row_of(engine, rows[0].id).last_error


def test_behind_a_slow_job_nothing_waits(engine, parts, handle, eventually):
    """What is done is settled and what has not begun is given back while the slow job still runs."""
    go_on = threading.Event()
    name = handle(lambda payload, context: go_on.wait(20) if payload["n"] == 1 else None)
    rows = [queued(engine, task=name, payload={"task": name, "n": n}) for n in range(5)]
    running = threading.Thread(target=Chunk(parts, claims_of(engine, *rows), window=0.2).run)
    running.start()
    eventually(lambda: statuses(engine, rows) == ["completed", "processing", "queued", "queued", "queued"])
    assert outcomes(engine, rows[2]) == [(1, "released")]
    assert row_of(engine, rows[2].id).retry_count == 0
    assert row_of(engine, rows[2].id).dispatched_at is None
    go_on.set()
    running.join(10)
    assert statuses(engine, rows)[1] == "completed"


@pytest.fixture
def waits_of_a_child():
    """Has libpq wait for PostgreSQL, as in a worker's child."""
    deadlines.uninstall()
    yield
    deadlines.install()


@pytest.mark.usefixtures("waits_of_a_child")
def test_a_slow_job_forks_when_what_is_handed_back_is_not_in_the_database_any_more(
    engine, parts, handle, eventually
):
    """A copy would have the locks of the database's driver as they are, for ever."""
    go_on, forked = threading.Event(), threading.Event()

    def fork(payload, context):
        if payload["n"] != 0:
            return
        assert go_on.wait(20)
        pid = os.fork()
        if pid == 0:  # pragma: no cover - another process
            os._exit(0)
        os.waitpid(pid, 0)
        forked.set()

    name = handle(fork)
    rows = [queued(engine, task=name, payload={"task": name, "n": n}) for n in range(2)]
    running = threading.Thread(target=Chunk(parts, claims_of(engine, *rows), window=0.05).run)
    with engine.begin() as other:
        other.execute(text("SELECT 1 FROM jobs WHERE id = :id FOR UPDATE"), {"id": rows[1].id})
        running.start()
        eventually(lambda: waiting_for_a_row(engine))
        go_on.set()
        assert not forked.wait(0.2)
    assert forked.wait(10)
    running.join(10)
    assert statuses(engine, rows) == ["completed", "queued"]


@pytest.mark.parametrize("jobs", [2, 4], ids=["one waits", "several wait"])
def test_what_could_not_be_handed_back_is_handed_back_once_the_database_answers(
    engine, parts, handle, eventually, *, monkeypatch, jobs
):
    """A lease's time of failures has passed by then, and the slow job still runs."""
    go_on, failures = threading.Event(), []
    name = handle(lambda payload, context: go_on.wait(60) if payload["n"] == 0 else None)
    rows = [queued(engine, task=name, payload={"task": name, "n": n}) for n in range(jobs)]
    real = ends.end_attempts

    def broken_at_first(connection, given):
        if len(failures) < 6:
            failures.append(1)
            connection.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
        return real(connection, given)

    monkeypatch.setattr(ends, "end_attempts", broken_at_first)
    monkeypatch.setattr(release, "AGAIN_AFTER", 0.01)
    no_lease = parts.settings.model_copy(update={"stuck_job_threshold": 0})
    impatient = dataclasses.replace(parts, settings=no_lease)
    running = threading.Thread(target=Chunk(impatient, claims_of(engine, *rows), window=0.05).run)
    running.start()
    eventually(lambda: statuses(engine, rows) == ["processing"] + ["queued"] * (jobs - 1))
    assert {row_of(engine, row.id).retry_count for row in rows} == {0}
    go_on.set()
    running.join(10)
    assert statuses(engine, rows)[0] == "completed"
    assert len(failures) == 6


def test_a_job_whose_lease_was_lost_is_dropped_and_the_others_are_kept(engine, parts):
    rows = [queued(engine) for _ in range(3)]
    claims = claims_of(engine, *rows)
    with engine.begin() as connection:
        connection.execute(text("UPDATE jobs SET attempt = attempt + 1 WHERE id = :id"), {"id": rows[1].id})
    settle_many(parts, [completed(claim, "1", 0.0, 0.1) for claim in claims])
    assert statuses(engine, rows) == ["completed", "processing", "completed"]
    assert row_of(engine, rows[1].id).result is None


def test_a_commit_whose_answer_was_lost_is_recognised(engine, parts, monkeypatch):
    claims = claims_of(engine, *(queued(engine) for _ in range(2)))
    done = [completed(claim, None, 0.0, 0.1) for claim in claims]
    with engine.begin() as connection:
        ends.complete_many(connection, done)
    real, calls = ends.complete_many, []

    def broken_once(connection, given):
        calls.append(1)
        if len(calls) == 1:
            connection.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
        return real(connection, given)

    monkeypatch.setattr(ends, "complete_many", broken_once)
    lost = chunk_module.metrics.leases_lost._value.get()
    settle_many(parts, done)
    assert len(calls) == 2
    assert chunk_module.metrics.leases_lost._value.get() == lost


def test_a_database_that_stays_away_leaves_the_chunk_to_the_sweeper(engine, parts, monkeypatch):
    claims = claims_of(engine, *(queued(engine) for _ in range(2)))

    def broken(connection, given):
        connection.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))

    monkeypatch.setattr(ends, "complete_many", broken)
    monkeypatch.setattr(retrying, "SHARE", 0.0)
    settle_many(parts, [completed(claim, None, 0.0, 0.1) for claim in claims])
    assert statuses(engine, claims) == ["processing", "processing"]


def test_hints_of_quick_tasks_share_messages_and_those_of_unknown_ones_do_not(broker, redis, engine, handle):
    quick, unknown = handle(lambda p, c: None), handle(lambda p, c: None)
    broker.paces.tell(quick, 0.02)
    hints = [queued(engine, task=quick) for _ in range(12)] + [queued(engine, task=unknown)]
    assert broker.send_hints(hints)
    bodies = [json.loads(one) for one in waiting(redis)]
    assert [one["headers"]["task"] for one in bodies] == ["tasks.execute_jobs"] * 3 + ["tasks.execute_job"]
    assert [len(json.loads(b64decode(one["body"]))[0][0]) for one in bodies[:3]] == [5, 5, 2]
    assert [one["headers"]["argsrepr"].split()[0] for one in bodies[:3]] == ["5", "5", "2"]


def test_a_handler_may_say_its_chunk_itself(broker, handle):
    name = handle(lambda payload, context: None, chunk=9)
    assert broker.paces.chunk_size(name) == 9


@pytest.mark.parametrize("chunk", [0, LARGEST_CHUNK + 1, -1])
def test_a_chunk_out_of_bounds_is_refused(handle, chunk):
    with pytest.raises(ValueError, match="chunk must be an integer from 1"):
        handle(lambda payload, context: None, chunk=chunk)


def test_the_pace_of_a_task_is_told_to_the_senders(engine, handle, broker, redis):
    name = handle(lambda payload, context: None)
    pace._paces.pop(name, None)
    rows = [queued(engine, task=name) for _ in range(3)]
    ended(execute_jobs, [str(row.id) for row in rows])
    assert float(redis.hget("djps:pace", name)) < 0.1
    assert broker.paces.chunk_size(name) > 1


@pytest.mark.usefixtures("paused")
def test_an_exhausted_job_of_a_chunk_goes_to_the_dead_letter_queue(engine, handle):
    def broken(payload, context):
        raise RuntimeError("always")

    name = handle(broken)
    row = queued(engine, task=name, max_retries=0)
    ended(execute_jobs, [str(row.id)])
    assert statuses(engine, [row]) == ["failed"]
    assert len(letters_of(engine, row.id)) == 1


@pytest.mark.usefixtures("paused")
def test_every_job_of_a_chunk_may_snooze_retry_or_be_discarded(engine, handle):
    ends_of = {"snooze": Snooze(30), "retry": Retry(after=5), "discard": Discard("no use"), "done": None}

    def run(payload, context):
        if ends_of[payload["how"]]:
            raise ends_of[payload["how"]]

    name = handle(run)
    rows = {how: queued(engine, task=name, payload={"task": name, "how": how}) for how in ends_of}
    ended(execute_jobs, [str(row.id) for row in rows.values()])
    found = {how: row_of(engine, row.id) for how, row in rows.items()}
    assert {how: (row.status, row.retry_count) for how, row in found.items()} == {
        "snooze": ("queued", 0), "retry": ("queued", 1), "discard": ("failed", 0), "done": ("completed", 0),
    }  # fmt: skip
    assert outcomes(engine, rows["snooze"]) == [(1, "snoozed")]
    assert (found["snooze"].run_at - found["snooze"].updated_at).total_seconds() == pytest.approx(30, abs=0.1)


def test_a_message_one_of_whose_jobs_failed_for_good_is_a_failure_for_celery(handle, engine):
    task = handle(fails_for("bad"))
    rows = [queued(engine, task=task, payload={"who": who}, max_retries=0) for who in ("good", "bad", "good")]
    with pytest.raises(JobsFailed, match="1 of this message's jobs"):
        execute_jobs.run([str(row.id) for row in rows])
    assert [row_of(engine, row.id).status for row in rows][::2] == ["completed"] * 2


def test_a_message_one_of_whose_jobs_is_tried_again_is_a_retry_for_celery(handle, engine):
    task = handle(fails_for("bad"))
    rows = [queued(engine, task=task, payload={"who": who}, max_retries=1) for who in ("good", "bad")]
    with pytest.raises(MessageDone, match="1 of this message's jobs were queued again"):
        execute_jobs.run([str(row.id) for row in rows])
    assert statuses(engine, rows) == ["completed", "queued"]


def test_a_message_whose_jobs_complete_is_a_success_for_celery(handle, engine):
    rows = [queued(engine, task=handle(fails_for("bad")), payload={"who": "good"}) for _ in range(2)]
    execute_jobs.run([str(row.id) for row in rows])
    assert statuses(engine, rows) == ["completed"] * 2


def fails_for(whom):
    def handler(payload, context):
        if payload["who"] == whom:
            raise ValueError("broken")

    return handler
