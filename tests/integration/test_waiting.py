"""Requests that wait for a job, its events, and how a handler says how far it is."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from types import SimpleNamespace
from uuid import uuid4

import psycopg2
import pytest
from clock import SettableClock
from ending import complete, end_again
from factories import (
    ENDS,
    ERROR,
    LEASE,
    WORKER,
    age,
    attempts_of,
    claimed,
    completed,
    dead_lettered,
    queued,
    row_of,
)
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from tasks.attempt.progress import MAX_NOTE, WRITE_EVERY, ProgressReport
from tasks.execution import execute_job
from tasks.handlers import demo
from tasks.sweeps.prune import run_prune
from webapp.api import following
from webapp.infra.postgres.deadlines import Away
from webapp.jobs import store
from webapp.jobs import watchers as watchers_module
from webapp.jobs.control import ask_cancel
from webapp.jobs.service import Jobs
from webapp.jobs.states import AttemptOutcome

#: How often each race is run.
RACES = 200
#: Longest that an answer may take after what it waited for, seconds; a lost notification costs a second more.
AT_ONCE = 0.9


@pytest.fixture
def watchers(app, eventually):
    """The waiting room, empty before and after."""
    room = app.extensions["watchers"]
    eventually(lambda: room.count == 0)
    yield room
    eventually(lambda: room.count == 0)


@pytest.fixture
def waiting(app, watchers, eventually):
    """Begins a request that waits, and gives the future of its answer and when it came."""
    pool = ThreadPoolExecutor(40)

    def begin(path):
        def ask():
            return app.test_client().get(path), time.monotonic()

        before = watchers.count
        future = pool.submit(ask)
        eventually(lambda: watchers.count > before or future.done())
        return future

    yield begin
    pool.shutdown()


def end(engine, claim):
    with engine.begin() as connection:
        assert complete(connection, claim, "1")


def listening(engine):
    with engine.connect() as connection:
        return connection.execute(
            text("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'djps-watchers'")
        ).scalar_one()


def test_a_waiter_is_answered_the_moment_the_job_is_final(waiting, engine, eventually):
    claim = claimed(engine)
    answer = waiting(f"/jobs/{claim.id}?wait=30")
    eventually(lambda: row_of(engine, claim.id) and listening(engine))
    time_of_end = time.monotonic()
    end(engine, claim)
    got, came = answer.result(10)
    assert (got.status_code, got.json["status"], got.json["result"]) == (200, "completed", 1)
    assert came - time_of_end < AT_ONCE


def test_a_job_that_is_final_is_answered_at_once(client, engine, watchers):
    before = time.monotonic()
    assert client.get(f"/jobs/{dead_lettered(engine).id}?wait=30").json["status"] == "failed"
    assert client.get(f"/jobs/{uuid4()}?wait=30").status_code == 404
    assert time.monotonic() - before < AT_ONCE


def test_after_the_wait_the_job_is_answered_as_it_is(client, engine, watchers):
    job = queued(engine)
    answer = client.get(f"/jobs/{job.id}?wait=0.2")
    assert (answer.status_code, answer.json["status"]) == (200, "queued")


def test_a_waiter_outlives_every_state_that_is_not_final(waiting, engine):
    job = queued(engine)
    answer = waiting(f"/jobs/{job.id}?wait=30")
    with engine.begin() as connection:
        (claim,) = store.claim(connection, [job.id], worker_id=WORKER, lease=LEASE)
    with engine.begin() as connection:
        end_again(connection, claim, AttemptOutcome.FAILED, ERROR, delay=0)
    with engine.begin() as connection:
        (claim,) = store.claim(connection, [job.id], worker_id=WORKER, lease=LEASE)
    assert not answer.done()
    end(engine, claim)
    assert answer.result(10)[0].json["attempt"] == 2


def test_a_listener_that_lost_its_connection_misses_nothing(waiting, engine, eventually):
    claim = claimed(engine)
    answer = waiting(f"/jobs/{claim.id}?wait=30")
    eventually(lambda: listening(engine))
    with engine.begin() as connection:
        connection.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = 'djps-watchers'"
            )
        )
        connection.execute(text("UPDATE jobs SET watched = false"))
    end(engine, claim)
    assert answer.result(10)[0].json["status"] == "completed"


def test_a_database_that_is_away_for_a_moment_ends_no_wait(waiting, app, engine, eventually, monkeypatch):
    claim = claimed(engine)
    jobs = app.extensions["jobs"]
    real, failed = jobs.get, []

    def get(*given):
        if threading.current_thread() is not threading.main_thread() and len(failed) == 1:
            failed.append(1)
            create_engine("postgresql+psycopg2://x@127.0.0.1:1/x").connect()
        failed.append(1)
        return real(*given)

    monkeypatch.setattr(jobs, "get", get)
    answer = waiting(f"/jobs/{claim.id}?wait=30")
    eventually(lambda: failed)
    end(engine, claim)
    # Nothing more happens to the job, and its end is seen all the same.
    assert answer.result(10)[0].json["status"] == "completed"
    assert len(failed) > 2


@pytest.mark.parametrize("query", ["wait=-1", "wait=61", "wait=long", "wait=nan", "wait=1&wait=2", "for=3"])
def test_a_wait_is_a_number_of_seconds(client, engine, query):
    assert client.get(f"/jobs/{queued(engine).id}?{query}").status_code == 422


def test_one_more_than_may_wait_is_refused_and_told_when_to_come_back(another_app, engine, eventually):
    app = another_app(max_waiters=1)
    room = app.extensions["watchers"]
    claim = claimed(engine)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(lambda: app.test_client().get(f"/jobs/{claim.id}?wait=30"))
        eventually(lambda: room.count == 1)
        for path in ("?wait=1", "/events"):
            refused = app.test_client().get(f"/jobs/{claim.id}{path}")
            assert refused.status_code == 503
            assert int(refused.headers["Retry-After"]) >= 1
            assert "MAX_WAITERS" in refused.get_json(force=True)["detail"]
        end(engine, claim)
        assert first.result(10).status_code == 200
    assert room.count == 0


def test_others_are_quick_while_many_wait(waiting, client, engine, settings):
    claim = claimed(engine)
    assert settings.api_threads < 30
    answers = [waiting(f"/jobs/{claim.id}?wait=30") for _ in range(30)]
    began = time.monotonic()
    assert client.get("/health").status_code == 200
    assert client.post("/jobs", json={"payload": {"task": "noop"}}).status_code == 201
    assert client.get(f"/jobs/{claim.id}").status_code == 200
    assert time.monotonic() - began < 2 * AT_ONCE
    end(engine, claim)
    assert {answer.result(20)[0].json["status"] for answer in answers} == {"completed"}


def test_a_process_that_ends_answers_those_who_wait(waiting, watchers, engine, monkeypatch):
    job = queued(engine)
    answer = waiting(f"/jobs/{job.id}?wait=30")
    monkeypatch.setattr(watchers, "is_open", lambda: False)
    assert answer.result(10)[0].json["status"] == "queued"


def test_the_listener_ends_when_no_one_waits_any_more(another_app, engine, eventually, monkeypatch):
    monkeypatch.setattr(watchers_module, "LINGER", 0.0)
    monkeypatch.setattr(watchers_module, "LOOK_EVERY", 0.05)
    app = another_app()
    room = app.extensions["watchers"]
    assert app.test_client().get(f"/jobs/{queued(engine).id}?wait=0.1").status_code == 200
    eventually(lambda: not room._listening)


def test_a_listener_goes_on_after_a_fault_of_its_own(another_app, engine, eventually, monkeypatch):
    monkeypatch.setattr(watchers_module, "RECONNECT_AFTER", 0.01)
    app = another_app()
    room = app.extensions["watchers"]
    failed = []
    real = room._look

    def look(connection, seen):
        if not failed:
            failed.append(1)
            raise RuntimeError("a bug")
        return real(connection, seen)

    monkeypatch.setattr(room, "_look", look)
    claim = claimed(engine)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(lambda: app.test_client().get(f"/jobs/{claim.id}?wait=30"))
        eventually(lambda: failed)
        end(engine, claim)
        assert answer.result(10).json["status"] == "completed"


@pytest.mark.parametrize("error", [SystemExit(), GeneratorExit()])
def test_a_listener_that_died_is_started_again_for_those_who_wait(
    another_app, engine, eventually, monkeypatch, error
):
    app = another_app()
    room = app.extensions["watchers"]
    real = room._look
    failed = []

    def look(connection, seen):
        if not failed:
            failed.append(1)
            raise error
        return real(connection, seen)

    monkeypatch.setattr(room, "_look", look)
    claim = claimed(engine)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(lambda: app.test_client().get(f"/jobs/{claim.id}?wait=30"))
        eventually(lambda: failed)
        end(engine, claim)
        assert answer.result(10).json["status"] == "completed"


def test_a_notification_of_someone_else_s_is_passed_over(waiting, engine, caplog, eventually):
    claim = claimed(engine)
    answer = waiting(f"/jobs/{claim.id}?wait=30")
    eventually(lambda: listening(engine))
    with engine.begin() as connection:
        connection.execute(text("NOTIFY djps_watched, 'no job'"))
    end(engine, claim)
    assert answer.result(10)[0].json["status"] == "completed"
    assert "listener failed unexpectedly" not in caplog.messages


def test_two_waits_and_a_cancel_end_together(waiting, engine):
    for _ in range(RACES):
        claim = claimed(engine)
        answers = [waiting(f"/jobs/{claim.id}?wait=30") for _ in range(2)]
        with engine.begin() as connection:
            ask_cancel(connection, claim.id)
        with engine.begin() as connection:
            end_again(connection, claim, AttemptOutcome.FAILED, ERROR, delay=0)
        assert [answer.result(10)[0].json["status"] for answer in answers] == ["cancelled"] * 2


def read(stream):
    """The next event of a stream: name, id, data."""
    for chunk in stream:
        fields = dict(line.split(": ", 1) for line in chunk.decode().strip().split("\n") if line[0] != ":")
        if "event" in fields:
            return fields["event"], fields["id"], json.loads(fields["data"])
    return None


def test_events_tell_of_every_step_until_the_job_is_final(client, engine, watchers):
    job = queued(engine)
    answer = client.get(f"/jobs/{job.id}/events")
    assert answer.content_type.startswith("text/event-stream")
    assert answer.headers["Cache-Control"] == "no-cache"
    stream = answer.iter_encoded()
    assert next(stream) == b"retry: 1000\n\n"
    name, first, data = read(stream)
    assert (name, data["status"], data["attempt"]) == ("state", "queued", 0)
    assert "payload" not in data
    with engine.begin() as connection:
        (claim,) = store.claim(connection, [job.id], worker_id=WORKER, lease=LEASE)
    name, second, data = read(stream)
    assert (name, data["status"], data["attempt"]) == ("state", "processing", 1)
    ProgressReport(engine, claim)(1, 4, "half of a half")
    name, _, data = read(stream)
    assert (name, data["progress"]["done"], data["progress"]["total"]) == ("progress", 1, 4)
    assert data["progress"]["note"] == "half of a half"
    assert data["progress"]["at"] == data["updated_at"]
    end(engine, claim)
    name, last, data = read(stream)
    assert (name, data["status"], data["result"]) == ("final", "completed", 1)
    assert read(stream) is None
    answer.close()
    assert int(first) < int(second) < int(last)
    seen = client.get(f"/jobs/{job.id}/events", headers={"Last-Event-ID": last})
    assert (seen.status_code, seen.data) == (204, b"")
    missed = client.get(f"/jobs/{job.id}/events", headers={"Last-Event-ID": second})
    assert read(missed.iter_encoded())[0] == "final"
    missed.close()


def test_what_the_client_has_seen_is_not_told_again(client, engine, watchers, monkeypatch):
    monkeypatch.setattr(following, "PING_EVERY", 0.05)
    claim = claimed(engine)
    known = following.event_id(row_of(engine, claim.id))
    answer = client.get(f"/jobs/{claim.id}/events", headers={"Last-Event-ID": known})
    stream = answer.iter_encoded()
    assert next(stream) == b"retry: 1000\n\n"
    assert next(stream) == b": ping\n\n"
    end(engine, claim)
    assert read(stream)[0] == "final"
    answer.close()


def test_a_client_that_goes_away_frees_its_place(client, engine, watchers):
    job = queued(engine)
    for begun in (False, True):
        answer = client.get(f"/jobs/{job.id}/events")
        stream = answer.iter_encoded()
        if begun:
            next(stream)
        assert watchers.count == 1
        answer.close()
        assert watchers.count == 0


def test_a_stream_ends_by_itself_after_a_while(client, engine, watchers, monkeypatch):
    monkeypatch.setattr(following, "EVENTS_LIMIT", 0.05)
    answer = client.get(f"/jobs/{queued(engine).id}/events")
    assert [read(answer.iter_encoded())[0], read(answer.iter_encoded())] == ["state", None]
    answer.close()


def test_the_stream_of_a_job_that_is_pruned_ends(client, engine, parts, watchers):
    claim = claimed(engine)
    answer = client.get(f"/jobs/{claim.id}/events")
    stream = answer.iter_encoded()
    assert read(stream)[0] == "state"
    end(engine, claim)
    age(engine, "finished_at", 40 * 86_400, claim.id)
    assert run_prune(parts, 1.0) == 1
    assert read(stream) is None
    answer.close()


@pytest.mark.parametrize("job_id", [uuid4(), "x"])
def test_an_unknown_job_has_no_events(client, job_id, watchers):
    assert client.get(f"/jobs/{job_id}/events").status_code == 404


def test_a_job_that_cannot_be_watched_leaves_no_watch(client, app, engine, watchers, monkeypatch):
    monkeypatch.setattr(app.extensions["jobs"], "watch", lambda *_: 1 / 0)
    assert client.get(f"/jobs/{queued(engine).id}/events").status_code == 500
    assert watchers.count == 0


@pytest.mark.parametrize(
    "error",
    [DBAPIError.instance("", {}, Away(), psycopg2.Error), PoolTimeout()],
    ids=["away", "no connection"],
)
def test_a_job_that_could_not_be_marked_in_time_is_waited_for(error, client, engine, watchers, monkeypatch):
    def watch(self, *_):
        raise error

    monkeypatch.setattr(Jobs, "watch", watch)
    claim = claimed(engine)

    def end():
        with engine.begin() as connection:
            complete(connection, claim, None)

    threading.Timer(0.2, end).start()
    answer = client.get(f"/jobs/{claim.id}?wait=10")
    assert (answer.status_code, answer.json["status"]) == (200, "completed")


def test_a_handler_says_how_far_it_is(handle, engine, client):
    seen = []

    def counts(payload, context):
        for number in range(1, 4):
            context.progress(number, 3, f"page {number}")
            seen.append(client.get(f"/jobs/{context.job_id}").json["progress"])

    row = queued(engine, task=handle(counts))
    execute_job.run(str(row.id))
    # The second comes too soon after the first, the last is always written.
    assert [one["done"] for one in seen] == [1, 1, 3]
    assert seen[2]["note"] == "page 3"
    assert client.get(f"/jobs/{row.id}").json["progress"]["done"] == 3


def test_progress_is_written_once_in_a_while_and_the_last_at_the_end(engine):
    claim, clock = claimed(engine), SettableClock()
    report = ProgressReport(engine, claim, clock)
    written = []
    for done in (1, 2, 3):
        report(done, 9)
        written.append(row_of(engine, claim.id).progress["done"])
        if done == 2:
            clock.advance(WRITE_EVERY)
    assert written == [1, 1, 3]
    report(4, 9)
    report.flush()
    assert row_of(engine, claim.id).progress["done"] == 4


def test_a_new_attempt_begins_without_progress(engine):
    claim = claimed(engine)
    ProgressReport(engine, claim)(5)
    assert row_of(engine, claim.id).progress["total"] is None
    with engine.begin() as connection:
        end_again(connection, claim, AttemptOutcome.FAILED, ERROR, delay=0)
    with engine.begin() as connection:
        store.claim(connection, [claim.id], worker_id=WORKER, lease=LEASE)
    ProgressReport(engine, claim)(6)
    assert row_of(engine, claim.id).progress is None, "an attempt that is over says nothing any more"
    assert len(attempts_of(engine, claim.id)) == 1


def test_a_note_is_kept_short_and_printable(engine):
    claim = claimed(engine)
    ProgressReport(engine, claim)(0, 0, "\x00\ud800" + "x" * 500)
    note = row_of(engine, claim.id).progress["note"]
    assert len(note) < MAX_NOTE
    assert note.startswith("?x")


def test_what_sums_of_fractions_leave_behind_is_not_shown(engine):
    claim = claimed(engine)
    ProgressReport(engine, claim)(0.1 + 0.2, 1 / 3)
    kept = row_of(engine, claim.id).progress
    assert (kept["done"], kept["total"]) == (0.3, 0.333333)


def test_a_sleeping_job_counts_the_steps_it_took(monkeypatch):
    told = []
    context = SimpleNamespace(check_cancelled=lambda: None, progress=lambda *given: told.append(given))
    monkeypatch.setattr(demo, "LOOK_EVERY", 0.25)
    demo.sleep({"seconds": 1}, context)
    assert told[:2] == [(0.25, 1), (0.5, 1)]


@pytest.mark.parametrize(
    ("done", "total"),
    [
        (-1, None),
        (float("nan"), 1),
        (1, float("inf")),
        (1, -1),
        ("1", 2),
        (1, "2"),
        (10**400, 1),
        (True, 1),
        (None, 1),
        (1j, 1),
    ],
)
def test_progress_is_a_number_from_nought_on(engine, done, total):
    with pytest.raises(ValueError, match=r"(done|total) must be a number from 0 to .*; given: "):
        ProgressReport(engine, claimed(engine))(done, total)


@pytest.fixture
def writes(monkeypatch):
    """What is written of progress: done, and when."""
    found = []
    real = store.note_progress

    def note(connection, job_id, attempt, **said):
        found.append((said["done"], time.monotonic()))
        return real(connection, job_id, attempt, **said)

    monkeypatch.setattr(store, "note_progress", note)
    return found


@pytest.mark.parametrize(
    "step",
    [lambda n: (n, n), lambda n: (7, 7), lambda n: (n, 10**9), lambda n: (n, None), lambda n: (n % 2, 1)],
    ids=["n of n", "7 of 7", "n of many", "n", "now and then the last"],
)
def test_however_often_it_is_said_it_is_written_now_and_then_and_the_last_is_not_lost(
    handle, engine, writes, step
):
    def loop(payload, context):
        end = time.monotonic() + 1.2
        said = 0
        while time.monotonic() < end:
            said += 1
            context.progress(*step(said))
        return [said, step(said)[0]]

    row = queued(engine, task=handle(loop))
    execute_job.run(str(row.id))
    found = row_of(engine, row.id)
    said, last = found.result
    assert said > 1_000
    assert len(writes) <= 8
    assert found.progress["done"] == writes[-1][0] == last


@pytest.mark.parametrize("error", [None, ValueError("broken"), SystemExit("x")])
def test_what_was_said_last_is_written_however_the_attempt_ends(handle, engine, error):
    def says(payload, context):
        context.progress(1, 10)
        context.progress(2, 10, 17)
        if error is not None:
            raise error

    row = queued(engine, task=handle(says))
    with suppress(ENDS):
        execute_job.run(str(row.id))
    found = row_of(engine, row.id).progress
    assert (found["done"], found["total"], found["note"]) == (2, 10, "17")


def test_a_database_that_is_away_costs_the_report_and_not_the_job(engine, caplog):
    claim = completed(engine)
    ProgressReport(create_engine("postgresql+psycopg2://x@127.0.0.1:1/x"), claim)(1)
    assert "progress could not be written" in caplog.messages
