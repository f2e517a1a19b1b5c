"""Jobs that are replaced before their first start: many submissions of one unique key are one run, of what came last."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from uuid import UUID

import pytest
from ending import complete as settle
from factories import LEASE, WORKER, age, books, ended, row_of, tables, waiting
from sqlalchemy import text

from tasks.execution import execute_job
from webapp.flow import lanes
from webapp.flow import store as flow_store
from webapp.flow.limits import Limits, QueueLimits
from webapp.flow.model import Kind, Target, lane_of
from webapp.infra.broker.hints import Ticket
from webapp.jobs import insert, replacements, store, unique_keys
from webapp.queues import tickets
from webapp.queues.tickets import ClaimTerms

HELD, REPLACED, REPLAYED = "DJPS-Unique-Held", "DJPS-Unique-Replaced", "Idempotency-Replayed"
#: Further ahead than a test takes, seconds.
LATER = 3_600.0


def body(n=0, key="index-17", *, more=None, **unique):
    asked = {"key": key, "on_conflict": "replace", **unique}
    return {"payload": {"task": "noop", "n": n}, "delay": LATER, "unique": asked} | (more or {})


def post(client, *given, **asked):
    return client.post("/jobs", json=body(*given, **asked))


def claim(engine, job_id):
    with engine.begin() as connection:
        return store.claim(connection, [UUID(str(job_id))], worker_id=WORKER, lease=LEASE)


def one(engine, statement, **values):
    with engine.connect() as connection:
        return connection.execute(text(statement), values).scalar_one()


def due_after(job):
    """Seconds from a job's first submission until it is due."""
    return (datetime.fromisoformat(job["run_at"]) - datetime.fromisoformat(job["created_at"])).total_seconds()


def waits_for(engine, words):
    return one(
        engine,
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE :words",
        words=f"%{words}%",
    )


def test_a_job_that_was_never_started_becomes_what_the_last_submission_asks(client, engine):
    first = post(client, 1, more={"priority": 2, "tags": ["a"], "idempotency_key": "first"})
    assert (first.status_code, REPLACED in first.headers) == (201, False)
    more = {
        "payload": {"task": "sleep", "seconds": 1e22}, "priority": 7, "tags": ["b"], "delay": LATER / 2, "key": "acme",
        "max_retries": 9, "timeout": 5.0, "backoff": [1, 2], "expires_at": "2090-01-01T00:00:00Z",
        "callback_url": "https://example.org/done",
    }  # fmt: skip
    again = post(client, more=more)
    assert (again.status_code, again.headers[REPLACED]) == (200, "true")
    assert not {HELD, REPLAYED} & set(again.headers.keys())
    wanted = more | {"task": "sleep", "backoff": [1.0, 2.0]}
    kept = {name: first.json[name] for name in ("id", "created_at", "idempotency_key", "status", "attempt")}
    wanted.pop("delay")
    assert {name: again.json[name] for name in (*wanted, *kept)} == wanted | kept
    assert LATER / 2 <= due_after(again.json) < LATER / 2 + 60
    assert client.get(f"/jobs/{first.json['id']}").json == again.json
    assert len(tables(engine)) == 1
    # What a submission leaves out is as by default, not as before.
    last = post(client, 3).json
    assert (last["priority"], last["tags"], last["key"], last["expires_at"]) == (5, [], None, None)


def test_one_that_has_begun_stays_as_it_is_and_another_takes_the_key(client, engine):
    first = post(client, 1, more={"delay": None}).json
    (claimed,) = claim(engine, first["id"])
    second = post(client, 2)
    assert (second.status_code, row_of(engine, first["id"]).payload["n"]) == (201, 1)
    third = post(client, 3)
    assert (third.json["id"], third.json["payload"]["n"]) == (second.json["id"], 3)
    with engine.begin() as connection:
        assert settle(connection, claimed, None)
    assert {row["payload"]["n"] for row in tables(engine) if "payload" in row} == {1, 3}


def test_a_claim_that_is_quicker_keeps_what_it_has_claimed(app, client, engine, eventually):
    first = post(client, 1, more={"delay": None}).json
    with ThreadPoolExecutor(1) as pool, engine.connect() as connection, connection.begin():
        (claimed,) = store.claim(connection, [UUID(first["id"])], worker_id=WORKER, lease=LEASE)
        answer = pool.submit(lambda: post(app.test_client(), 2))
        eventually(lambda: waits_for(engine, "FOR NO KEY UPDATE"))
        connection.commit()
        assert answer.result().status_code == 201
    assert claimed.payload["n"] == row_of(engine, first["id"]).payload["n"] == 1


def test_a_claim_that_comes_later_finds_what_was_asked_last_and_when(client, engine, eventually):
    """The claim has found the job due, waits for its row, and judges it as it is then."""
    first = post(client, 1, more={"delay": None}).json
    with ThreadPoolExecutor(1) as pool, engine.connect() as connection, connection.begin():
        replacements.hold(connection, ["index-17"])
        claimed = pool.submit(claim, engine, first["id"])
        eventually(lambda: waits_for(engine, "UPDATE jobs_living%processing"))
        connection.execute(
            text("UPDATE jobs_living SET run_at = now() + interval '1 hour' WHERE id = :id"),
            {"id": first["id"]},
        )
        connection.commit()
        assert claimed.result() == []
    assert row_of(engine, first["id"]).attempt == 0


def test_it_is_put_off_no_further_than_the_first_submission_allows(client, engine):
    first = post(client, 1, max_wait=60).json
    assert due_after(first) == pytest.approx(60, abs=5)
    at = {"delay": None, "run_at": "2090-01-01T00:00:00Z"}
    assert due_after(post(client, 2, "other", max_wait=60, more=at).json) == pytest.approx(60, abs=5)
    age(engine, "created_at", 50, UUID(first["id"]))
    for more in ({}, at):
        answer = post(client, 3, max_wait=60, more=more).json
        assert (answer["id"], due_after(answer)) == (first["id"], 60.0)
    # Sooner is no matter of it, and without it there is no bound.
    assert due_after(post(client, 4, max_wait=60, more={"delay": 0}).json) < 60
    assert due_after(post(client, 5).json) > LATER


def test_many_in_a_row_are_one_run_of_what_came_last(client, engine, answered, eventually):
    done, seen = threading.Event(), []

    def claim_all():
        while not done.is_set():
            with engine.begin() as connection:
                waits = (
                    connection.execute(text("SELECT id FROM jobs_living WHERE status = 'queued'"))
                    .scalars()
                    .all()
                )
                seen.extend(store.claim(connection, waits, worker_id=WORKER, lease=LEASE) if waits else [])

    worker = threading.Thread(target=claim_all)
    worker.start()
    try:
        answers = [
            answered(lambda number=number: post(client, number, max_wait=LATER)) for number in range(50)
        ]
        assert Counter(answer.status_code for answer in answers) == {201: 1, 200: 49}
        assert seen == []
        age(engine, "run_at", 2 * LATER)
        eventually(lambda: seen)
    finally:
        done.set()
        worker.join()
    assert [found.payload["n"] for found in seen] == [49]
    assert len(tables(engine)) == 1


def test_a_hundred_at_once_are_one_job(app, engine, answered):
    def submit(number):
        with app.test_client() as client:
            return answered(lambda: post(client, number)).status_code

    with ThreadPoolExecutor(16) as pool:
        assert Counter(pool.map(submit, range(100))) == {201: 1, 200: 99}
    assert len(tables(engine)) == 1


def test_a_repeated_request_does_not_replace_again(client, engine):
    first = post(client, 1).json
    mine = body(2, more={"idempotency_key": "i"})
    assert client.post("/jobs", json=mine).headers[REPLACED] == "true"
    post(client, 3)
    again = client.post("/jobs", json=mine)
    assert (again.status_code, again.headers[REPLAYED], REPLACED in again.headers) == (200, "true", False)
    assert (again.json["id"], again.json["payload"]["n"]) == (first["id"], 3)
    assert client.post("/jobs", json=body(4, more={"idempotency_key": "i"})).status_code == 422
    claim(engine, first["id"])
    assert client.post("/jobs", json=mine).json["id"] == first["id"]
    assert row_of(engine, first["id"]).payload["n"] == 3


@pytest.mark.parametrize("path", ["/jobs", "/jobs/batch"])
def test_an_idempotency_key_that_was_taken_meanwhile_takes_it_all_back(client, engine, monkeypatch, path):
    first = post(client, 1).json
    client.post("/jobs", json={"payload": {"task": "noop"}, "idempotency_key": "i"})
    monkeypatch.setattr(insert, "find_by_keys", lambda *_: {})
    wanted = body(2, more={"idempotency_key": "i"})
    answer = client.post(path, json=wanted if path == "/jobs" else {"jobs": [wanted]})
    assert (answer.status_code, answer.headers["Retry-After"]) == (409, "1")
    assert row_of(engine, first["id"]).payload["n"] == 1


@pytest.mark.parametrize("statement", [insert.STATEMENT_CHARACTERS, 1])
def test_a_batch_is_judged_item_by_item_in_its_order(client, engine, monkeypatch, statement):
    monkeypatch.setattr(insert, "STATEMENT_CHARACTERS", statement)
    there = [post(client, 0, key).json["id"] for key in ("old", "older")]
    begun = post(client, 0, "begun", more={"delay": None}).json["id"]
    claim(engine, begun)
    plain = {"payload": {"task": "noop"}, "unique": {"key": "new"}}
    answer = client.post(
        "/jobs/batch",
        json={
            "jobs": [
                body(1, "old", more={"idempotency_key": "i"}),
                body(2, "old"),
                body(3, "older"),
                plain | {"idempotency_key": "j"},
                body(5, "new", more={"idempotency_key": "k", "priority": 8}),
                plain,
                body(7, "begun"),
                body(8, "begun"),
                body(5, "new", more={"idempotency_key": "k", "priority": 8}),
                {"payload": {"task": "noop"}},
            ]
        },
    ).json
    items = answer["items"]
    assert (answer["created"], answer["existing"]) == (3, 7)
    assert items[0] == items[1] == {"outcome": "existing", "id": there[0], "replaced": True}
    assert items[2] == {"outcome": "existing", "id": there[1], "replaced": True}
    assert items[4] == {"outcome": "existing", "id": items[3]["id"], "replaced": True}
    assert items[5] == {"outcome": "existing", "id": items[3]["id"], "held": True}
    assert items[7] == {"outcome": "existing", "id": items[6]["id"], "replaced": True}
    assert items[8] == {"outcome": "existing", "id": items[3]["id"]}
    payloads = [
        row_of(engine, job_id).payload.get("n") for job_id in (*there, items[3]["id"], items[6]["id"], begun)
    ]
    assert payloads == [2, 3, 5, 8, 0]
    new = row_of(engine, items[3]["id"])
    assert (new.idempotency_key, new.priority) == ("j", 8)
    # Each request owns its idempotency key, also those that others have replaced since.
    for number, given in (
        (0, body(1, "old", more={"idempotency_key": "i"})),
        (3, plain | {"idempotency_key": "j"}),
    ):
        again = client.post("/jobs", json=given)
        assert (again.json["id"], again.headers[REPLAYED]) == (items[number]["id"], "true")


def test_batches_at_once_make_each_job_once(app, engine, answered):
    names = [f"k-{number}" for number in range(20)]

    def submit(number):
        jobs = [body(number, name) for name in (names if number % 2 else names[::-1])]
        with app.test_client() as client:
            return answered(lambda: client.post("/jobs/batch", json={"jobs": jobs})).json

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(submit, range(12)))
    assert sum(answer["created"] for answer in answers) == 20
    assert len(tables(engine)) == 20
    # A batch replaces all or none: one of them was the last.
    assert one(engine, "SELECT count(DISTINCT payload) FROM jobs") == 1


def test_a_holder_that_began_while_it_was_held_takes_all_back(client, engine, monkeypatch):
    """It cannot, as its row is locked; should it all the same, nothing of the submission stays."""
    first = post(client, 1).json
    monkeypatch.setattr(unique_keys, "replace_jobs", lambda *_, **__: {})
    answer = post(client, 2, more={"idempotency_key": "i"})
    assert (answer.status_code, answer.headers["Retry-After"]) == (409, "1")
    assert row_of(engine, first["id"]).payload["n"] == 1


def test_a_job_that_counts_by_its_time_is_replaced_only_before_its_start(client, engine):
    lasting = {"payload": {"task": "noop"}, "unique": {"key": "index-17", "for": 600}}
    first = client.post("/jobs", json=lasting).json
    assert post(client, 1, more={"delay": None}).headers[REPLACED] == "true"
    claim(engine, first["id"])
    answer = post(client, 2)
    assert (answer.json["id"], answer.headers[HELD]) == (first["id"], "true")


def test_one_that_would_have_expired_is_what_was_asked_last(client, engine):
    first = post(client, 1, more={"expires_at": "2090-01-01T00:00:00Z"}).json
    age(engine, "expires_at", 100 * 366 * 86_400)
    answer = post(client, 2, more={"delay": None}).json
    assert (answer["id"], answer["expires_at"]) == (first["id"], None)
    assert [found.payload["n"] for found in claim(engine, first["id"])] == [2]


def test_what_is_put_off_does_not_start_by_a_message_of_before(client, service, engine, redis):
    first = post(client, 1, more={"delay": None}).json
    service.flush()
    assert len(waiting(redis)) == 1
    post(client, 2)
    assert row_of(engine, first["id"]).dispatched_at is None
    ended(execute_job, first["id"])
    assert row_of(engine, first["id"]).attempt == 0


def test_what_comes_sooner_is_sent_at_once_and_a_message_is_enough(client, service, engine, redis):
    first = post(client, 1).json
    service.flush()
    assert waiting(redis) == []
    sent_at = []
    for number in range(5):
        post(client, number, more={"delay": None})
        service.flush()
        sent_at.append(row_of(engine, first["id"]).dispatched_at)
    assert len(waiting(redis)) == 1
    # Should that one be lost, its time is what counts, however often the job is replaced.
    assert len({*sent_at}) == 1
    assert sent_at[0] is not None
    # In another place of the queue, or in another queue, the one that waits does not count.
    post(client, 6, more={"delay": None, "priority": 9})
    service.flush()
    assert len(waiting(redis)) == 2
    ended(execute_job, first["id"])
    assert (row_of(engine, first["id"]).payload["n"], row_of(engine, first["id"]).attempt) == (6, 1)


@pytest.mark.parametrize("path", ["/jobs", "/jobs/batch"])
def test_a_batch_tells_workers_as_a_single_one_does(client, service, redis, path):
    def send(number, **more):
        wanted = body(number, more=more)
        client.post(path, json=wanted if path == "/jobs" else {"jobs": [wanted]})
        service.flush()

    send(1)
    assert waiting(redis) == []
    send(2, delay=None)
    assert len(waiting(redis)) == 1
    send(3, delay=None)
    assert len(waiting(redis)) == 1


@pytest.fixture
def limited(app, engine):
    """A queue with a limit, known at once to every process."""
    with engine.begin() as connection:
        flow_store.lock(connection, Target(Kind.QUEUE, "default"))
        flow_store.set_limits(connection, Target(Kind.QUEUE, "default"), QueueLimits(Limits(concurrency=5)))
    for book in books(app):
        book.forget()


def take(engine):
    with engine.begin() as connection:
        terms = ClaimTerms(5, "w/1", 60.0)
        return tickets.claim_due(connection, Ticket("default", "noop", 300.0), terms, in_lanes=True)


def due_in_lanes(engine):
    with engine.connect() as connection:
        return {task: work.jobs for task, work in lanes.look(connection, "default", 200).items()}


@pytest.mark.usefixtures("limited")
def test_a_lane_finds_a_job_that_comes_sooner(client, engine, redis, service):
    first = post(client, 1).json
    assert take(engine) == []
    assert one(engine, "SELECT state FROM lanes") == "timed"
    redis.flushdb()
    post(client, 2, more={"delay": None})
    service.flush()
    assert due_in_lanes(engine) == {"noop": 1}
    assert len(waiting(redis)) == 1
    assert [(str(found.id), found.payload["n"]) for found in take(engine)] == [(first["id"], 2)]


@pytest.mark.usefixtures("limited")
def test_a_lane_does_not_start_a_job_that_was_put_off_and_is_not_called_for_it(client, engine):
    first = post(client, 1, more={"delay": None}).json
    assert due_in_lanes(engine) == {"noop": 1}
    with engine.begin() as connection:
        lanes.call(connection, "default")
    for number in range(10):
        post(client, number)
    assert one(engine, "SELECT count(*) FROM lane_wakeups") == 0
    assert take(engine) == []
    moment = one(engine, "SELECT ready_at FROM lanes")
    assert moment - row_of(engine, first["id"]).run_at < timedelta(seconds=1)
    age(engine, "run_at", 2 * LATER)
    with engine.begin() as connection:
        connection.execute(text("UPDATE lanes SET ready_at = now() - interval '1 second'"))
    assert [found.payload["n"] for found in take(engine)] == [9]


@pytest.mark.usefixtures("limited")
def test_a_job_moves_to_the_lane_of_its_new_key(client, engine):
    first = post(client, 1, more={"delay": None, "key": "a"}).json
    with engine.begin() as connection:
        lanes.call(connection, "default")
    post(client, 2, more={"delay": None, "key": "b"})
    assert one(engine, "SELECT lane FROM jobs") == lane_of("default", "b")
    assert [(str(found.id), found.payload["n"]) for found in take(engine)] == [(first["id"], 2)]
    assert one(engine, "SELECT count(*) FROM lanes WHERE key = 'b'") == 1


def test_a_job_of_before_a_limit_is_filed_by_what_replaces_it(client, engine, request):
    first = post(client, 1).json
    request.getfixturevalue("limited")
    post(client, 2, more={"delay": None})
    assert one(engine, "SELECT lane FROM jobs") == lane_of("default", None)
    assert [str(found.id) for found in take(engine)] == [first["id"]]


@pytest.mark.parametrize(
    ("unique", "field"),
    [
        ({"on_conflict": "replace", "while": "unfinished"}, "unique.on_conflict"),
        ({"on_conflict": "replace", "for": 60}, "unique.on_conflict"),
        ({"on_conflict": "refuse", "max_wait": 60}, "unique.max_wait"),
        ({"max_wait": 60}, "unique.max_wait"),
        ({"on_conflict": "replace", "max_wait": 0}, "unique.max_wait"),
        ({"on_conflict": "replace", "max_wait": 30 * 86_400 + 1}, "unique.max_wait"),
        ({"on_conflict": "replace", "max_wait": "60"}, "unique.max_wait"),
    ],
)
def test_what_breaks_a_rule_is_refused_by_name(client, engine, unique, field):
    answer = client.post("/jobs", json={"payload": {"task": "noop"}, "unique": {"key": "k", **unique}})
    assert answer.status_code == 422
    assert [fault["field"] for fault in answer.json["errors"]] == [field]
    assert tables(engine) == []


def test_the_command_line_replaces(flask, engine):
    words = ("--unique", "k", "--unique-on-conflict", "replace", "--unique-max-wait", 60, "--delay", 3600)
    (first,) = flask("jobs", "submit", '{"task": "noop", "n": 1}', *words).stdout.split()
    again = flask("jobs", "submit", '{"task": "noop", "n": 2}', *words)
    assert again.stdout.strip() == f"{first} (replaced)"
    assert row_of(engine, first).payload["n"] == 2
    refused = flask("jobs", "submit", '{"task": "noop"}', "--unique", "k", "--unique-on-conflict", "refuse")
    assert (refused.exit_code, f"is held by job {first}" in refused.stderr) == (1, True)
