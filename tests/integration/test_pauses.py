"""What a pause holds: messages, tickets, chunks that were claimed before it, and the dispatcher; nothing is lost meanwhile."""

from __future__ import annotations

import threading

import pytest
from factories import age, attempts_of, books, ended, queued, row_of, waiting
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from tasks.attempt import release
from tasks.chunk import Chunk, execute_due, execute_jobs
from tasks.execution import execute_job
from tasks.runtime import child_name
from tasks.sweeps.dispatch import run_dispatch
from tasks.sweeps.expire import run_expiry
from webapp.flow import store as flow_store
from webapp.infra.broker.transport import lists_of
from webapp.jobs import store
from webapp.queues import aside
from webapp.queues import store as queue_store

TARGETS = {"queue": "/queues/default", "task": "/tasks/noop"}
LONGEST = 300.0


class Flow:
    """Pauses and resumes over HTTP; every process knows it at once."""

    def __init__(self, app):
        self.app, self.client = app, app.test_client()

    def _turn(self, path, verb):
        answer = self.client.post(f"{path}/{verb}", json={"by": "ada"})
        assert answer.json["paused"] is (verb == "pause")
        for book in books(self.app):
            book.forget()

    def pause(self, path="/queues/default"):
        self._turn(path, "pause")

    def resume(self, path="/queues/default"):
        self._turn(path, "resume")


@pytest.fixture
def flow(app):
    return Flow(app)


def dispatch(dispatcher, queue="default"):
    dispatcher._book.forget()
    return dispatcher.dispatch(queue, buffer=100, redispatch_after=60.0)


def dispatched_at(engine, row):
    with engine.connect() as connection:
        found = connection.execute(
            text("SELECT CAST(dispatched_at AS text) FROM jobs_living WHERE id = :id"), {"id": row.id}
        )
        return found.scalar_one()


@pytest.mark.parametrize("path", TARGETS.values(), ids=TARGETS)
@pytest.mark.parametrize("many", [False, True], ids=["one", "chunk"])
def test_a_named_message_starts_nothing_and_its_job_goes_back_to_the_dispatcher(flow, engine, path, many):
    rows = [queued(engine, dispatched=True) for _ in range(2 if many else 1)]
    flow.pause(path)
    if many:
        ended(execute_jobs, [str(row.id) for row in rows])
    else:
        ended(execute_job, str(rows[0].id))
    for row in rows:
        found = row_of(engine, row.id)
        assert (found.status, found.attempt, found.dispatched_at) == ("queued", 0, None)


def test_of_one_message_what_is_paused_waits_and_the_rest_runs(flow, engine, handle):
    name = handle(lambda payload, context: None)
    rows = [queued(engine, dispatched=True), queued(engine, dispatched=True, task=name)]
    flow.pause("/tasks/noop")
    ended(execute_jobs, [str(row.id) for row in rows])
    assert [row_of(engine, row.id).status for row in rows] == ["queued", "completed"]


def test_a_message_of_a_job_that_is_gone_gives_back_nothing(flow, engine, handle):
    name = handle(lambda payload, context: None)
    row = queued(engine, dispatched=True, task=name)
    later = queued(engine, dispatched=True, task=name)
    age(engine, "run_at", -60, later.id)
    flow.pause("/tasks/noop")
    ended(execute_jobs, [str(row.id), str(later.id)])
    assert row_of(engine, later.id).dispatched_at is not None


@pytest.mark.parametrize("path", TARGETS.values(), ids=TARGETS)
def test_a_ticket_claims_nothing(flow, engine, path):
    rows = [queued(engine) for _ in range(3)]
    flow.pause(path)
    ended(execute_due, "default", "noop", LONGEST)
    assert {(row_of(engine, row.id).status, row_of(engine, row.id).attempt) for row in rows} == {
        ("queued", 0)
    }
    flow.resume(path)
    ended(execute_due, "default", "noop", LONGEST)
    assert {row_of(engine, row.id).status for row in rows} == {"completed"}


@pytest.mark.parametrize("path", ["/queues/default", None], ids=["queue", "task"])
@pytest.mark.parametrize("by_ticket", [False, True], ids=["named", "ticket"])
def test_a_chunk_that_is_paused_hands_back_what_has_not_begun(flow, engine, handle, path, by_ticket):
    """The job that runs pauses its own queue: it ends as ever, and none after it begins."""
    begun = []

    def work(payload, context):
        begun.append(payload["n"])
        if payload["n"] == 1:
            flow.pause(path or f"/tasks/{payload['task']}")

    name = handle(work, chunk=10)
    rows = [
        queued(engine, task=name, payload={"task": name, "n": n}, dispatched=not by_ticket) for n in range(5)
    ]
    if by_ticket:
        ended(execute_due, "default", name, LONGEST)
    else:
        ended(execute_jobs, [str(row.id) for row in rows])
    assert begun == [0, 1]
    found = [row_of(engine, row.id) for row in rows]
    assert [row.status for row in found] == ["completed"] * 2 + ["queued"] * 3
    assert [row.retry_count for row in found] == [0] * 5
    assert {row.dispatched_at for row in found[2:]} == {None}
    assert [one["outcome"] for one in attempts_of(engine, rows[4].id)] == ["released"]
    flow.resume(path or f"/tasks/{name}")
    ended(execute_jobs, [str(row.id) for row in rows])
    assert begun == [0, 1, 2, 3, 4]


def test_a_job_that_was_claimed_just_before_the_pause_does_not_begin(flow, engine, parts, monkeypatch):
    """The claim and the pause cross: the look right before the start sees it."""
    real = store.claim

    def claim(*given, **more):
        found = real(*given, **more)
        flow.pause()
        return found

    monkeypatch.setattr(store, "claim", claim)
    row = queued(engine, dispatched=True)
    ended(execute_job, str(row.id))
    found = row_of(engine, row.id)
    assert (found.status, found.retry_count, found.dispatched_at) == ("queued", 0, None)
    assert [one["outcome"] for one in attempts_of(engine, row.id)] == ["released"]


def test_where_the_rules_cannot_be_read_what_has_not_begun_is_handed_back(engine, parts, handle, monkeypatch):
    begun = []
    name = handle(lambda payload, context: begun.append(payload["n"]))
    rows = [queued(engine, task=name, payload={"task": name, "n": n}) for n in range(3)]
    with engine.begin() as connection:
        claims = store.claim(connection, [row.id for row in rows], worker_id=child_name(), lease=60.0)

    def away():
        raise OperationalError("rules", {}, Exception("away"))

    real = parts.book.rules
    monkeypatch.setattr(parts.book, "rules", lambda: real() if not begun else away())
    Chunk(parts, claims).run()
    assert len(begun) == 1
    assert sorted(row_of(engine, row.id).status for row in rows) == ["completed", "queued", "queued"]


def test_a_process_that_knew_of_no_pause_learns_of_it_within_the_age_of_its_rules(client, engine, parts):
    assert release.may_begin(parts, [("default", "noop")])
    client.post("/queues/default/pause")
    assert release.may_begin(parts, [("default", "noop")])
    clock = parts.book._clock
    try:
        parts.book._clock = lambda: clock() + 0.8
        assert not release.may_begin(parts, [("default", "noop")])
    finally:
        parts.book._clock = clock
        parts.book.forget()


@pytest.mark.parametrize("path", TARGETS.values(), ids=TARGETS)
def test_nothing_is_sent_of_what_is_paused(flow, engine, dispatcher, redis, path):
    rows = [queued(engine) for _ in range(3)]
    flow.pause(path)
    assert dispatch(dispatcher) == {}
    assert waiting(redis, "default") == []
    flow.resume(path)
    dispatcher._book.forget()
    dispatcher.bring_back(["default"])
    assert dispatch(dispatcher) == {"due": 3}
    assert {row_of(engine, row.id).dispatched_at is None for row in rows} == {False}


@pytest.mark.parametrize("path", TARGETS.values(), ids=TARGETS)
def test_a_submission_to_what_is_paused_is_stored_and_not_sent(flow, client, engine, redis, path):
    flow.pause(path)
    one = client.post("/jobs", json={"payload": {"task": "noop"}})
    many = client.post("/jobs/batch", json={"jobs": [{"payload": {"task": "noop"}}] * 2})
    assert (one.status_code, many.json["created"]) == (201, 2)
    flow.app.extensions["jobs"].flush()
    assert waiting(redis, "default") == []
    assert row_of(engine, one.json["id"]).dispatched_at is None
    assert row_of(engine, many.json["items"][0]["id"]).dispatched_at is None


def test_other_queues_and_tasks_go_on(flow, engine, dispatcher, redis, handle):
    name = handle(lambda payload, context: None)
    flow.pause("/tasks/noop")
    for _ in range(300):
        queued(engine)
    behind = queued(engine, task=name)
    assert dispatch(dispatcher) == {"due": 1}
    (message,) = waiting(redis, "default")
    assert str(behind.id) in message


def test_jobs_of_a_paused_task_are_set_aside_and_come_back(flow, engine, dispatcher):
    rows = [queued(engine) for _ in range(5)]
    flow.pause("/tasks/noop")
    assert dispatch(dispatcher) == {}
    assert {dispatched_at(engine, row) for row in rows} == {"infinity"}
    # They are neither counted as sent, nor taken for lost with Redis's memory.
    with engine.begin() as connection:
        assert queue_store.count_named(connection, "default", 10) == 0
        assert queue_store.forget_dispatched(connection) == 0
        assert queue_store.take_unclaimed(connection, "default", 10, 0.0) == []
        assert queue_store.seconds_to_next_due(connection, ["default"], 60.0) is None
    flow.resume("/tasks/noop")
    dispatcher._book.forget()
    assert dispatcher.bring_back(["default"]) == 5
    assert dispatched_at(engine, rows[0]) is None
    with engine.connect() as connection:
        assert flow_store.rules(connection).returning == {"noop"}
    assert dispatcher.bring_back(["default"]) == 0
    with engine.connect() as connection:
        assert flow_store.rules(connection).returning == frozenset()


def test_a_task_that_is_resumed_at_the_same_time_has_nothing_set_aside(flow, engine):
    """The dispatcher still goes by the rules of a moment ago."""
    row = queued(engine)
    flow.pause("/tasks/noop")
    flow.resume("/tasks/noop")
    with engine.begin() as connection:
        assert aside.set_aside(connection, "default", ["noop"]) == 0
    assert dispatched_at(engine, row) is None


def test_a_resume_waits_for_what_is_being_set_aside(flow, app, engine, eventually):
    """Else jobs could be set aside after all were brought back, and stay there."""
    row = queued(engine)
    flow.pause("/tasks/noop")
    answered = threading.Event()

    def resuming():
        app.test_client().post("/tasks/noop/resume")
        answered.set()

    with engine.begin() as connection:
        assert aside.set_aside(connection, "default", ["noop"]) == 1
        thread = threading.Thread(target=resuming)
        thread.start()
        eventually(lambda: _waits_for_a_lock(engine))
        assert not answered.is_set()
    assert answered.wait(10)
    thread.join(10)
    with engine.begin() as connection:
        assert aside.note_all_back(connection, ["noop"]) == 0
        assert aside.bring_back(connection, "default", ["noop"]) == 1
        assert aside.note_all_back(connection, ["noop"]) == 1
    assert dispatched_at(engine, row) is None


def _waits_for_a_lock(engine):
    with engine.connect() as connection:
        return connection.execute(text("SELECT count(*) FROM pg_locks WHERE NOT granted")).scalar_one()


def test_what_is_set_aside_can_be_cancelled_and_expires(flow, client, engine, dispatcher, parts):
    rows = [queued(engine) for _ in range(2)]
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE jobs SET expires_at = now() + interval '0.2 s' WHERE id = :id"), {"id": rows[0].id}
        )
    flow.pause("/tasks/noop")
    dispatch(dispatcher)
    assert dispatched_at(engine, rows[0]) == "infinity"
    with engine.begin() as connection:
        connection.execute(text("UPDATE jobs SET expires_at = now() WHERE id = :id"), {"id": rows[0].id})
    assert run_expiry(parts) == 1
    assert client.post(f"/jobs/{rows[1].id}/cancel").json["cancel"] == "cancelled"
    assert {row_of(engine, row.id).status for row in rows} == {"cancelled"}


def test_a_set_aside_job_is_shown_as_one_that_was_not_sent(flow, client, engine, dispatcher):
    row = queued(engine)
    flow.pause("/tasks/noop")
    dispatch(dispatcher)
    assert client.get(f"/jobs/{row.id}/explain").json["state"] == "task_paused"
    flow.resume("/tasks/noop")
    told = client.get(f"/jobs/{row.id}/explain").json
    assert told["state"] != "sent"
    assert "9999" not in told["sentence"]


@pytest.mark.parametrize("path", TARGETS.values(), ids=TARGETS)
def test_after_a_resume_a_pass_of_the_dispatcher_sends_it_all(flow, engine, parts, redis, path):
    rows = [queued(engine, dispatched=True) for _ in range(3)]
    flow.pause(path)
    run_dispatch(parts)
    for row in rows:
        ended(execute_job, str(row.id))
    run_dispatch(parts)
    redis.delete(*lists_of("default"))
    flow.resume(path)
    run_dispatch(parts)
    sent = " ".join(waiting(redis, "default"))
    assert all(str(row.id) in sent for row in rows)


def test_a_queue_that_is_paused_is_no_reason_to_look_again_at_once(flow, engine, dispatcher):
    queued(engine)
    assert dispatcher.seconds_to_next_due(["default"], 60.0) == 0
    flow.pause()
    dispatcher._book.forget()
    assert dispatcher.seconds_to_next_due(["default"], 60.0) is None


def test_both_pauses_hold_and_each_is_lifted_by_itself(flow, engine):
    row = queued(engine, dispatched=True)
    flow.pause("/queues/default")
    flow.pause("/tasks/noop")
    flow.resume("/queues/default")
    ended(execute_job, str(row.id))
    assert row_of(engine, row.id).status == "queued"
    flow.resume("/tasks/noop")
    ended(execute_job, str(row.id))
    assert row_of(engine, row.id).status == "completed"
