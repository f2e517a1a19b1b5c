"""`POST /jobs/batch`: one transaction, an answer for each job."""

from __future__ import annotations

import threading
import time

import pytest
from factories import waiting
from sqlalchemy import text

from webapp.jobs import insert
from webapp.jobs.handlers import registry

#: Most characters of a statement's payloads: all jobs in one, a few in each, one in each.
statements = pytest.mark.parametrize("statement", [insert.STATEMENT_CHARACTERS, 60, 1])


def post(client, *jobs, **more):
    return client.post("/jobs/batch", json={"jobs": list(jobs), **more})


def noop(key=None, **payload):
    return {"payload": {"task": "noop", **payload}} | ({"idempotency_key": key} if key else {})


def count(engine):
    with engine.connect() as connection:
        return connection.execute(text("SELECT count(*) FROM jobs")).scalar()


@statements
def test_every_job_is_stored_and_named_in_order(client, service, redis, monkeypatch, statement):
    monkeypatch.setattr(insert, "STATEMENT_CHARACTERS", statement)
    answer = post(client, *(noop(n=n) for n in range(30)))
    assert answer.status_code == 200
    body = answer.get_json()
    assert (body["created"], body["existing"], body["invalid"]) == (30, 0, 0)
    for number, item in enumerate(body["items"]):
        assert client.get(f"/jobs/{item['id']}").get_json()["payload"]["n"] == number
    assert service.flush()
    assert len(waiting(redis)) == 30


@statements
def test_each_job_has_an_answer_of_its_own(client, engine, monkeypatch, statement):
    monkeypatch.setattr(insert, "STATEMENT_CHARACTERS", statement)
    first = client.post("/jobs", json=noop("taken")).get_json()
    client.post("/jobs", json=noop("other", n=1))
    items = post(
        client,
        noop("new"),
        noop("taken"),
        noop("other", n=2),
        {"payload": "text"},
        {"payload": {}, "surprise": 1},
        17,
        noop("new"),
        noop("new", n=5),
    ).get_json()["items"]
    assert [item["outcome"] for item in items] == [
        "created", "existing", "invalid", "invalid", "invalid", "invalid", "existing", "invalid",
    ]  # fmt: skip
    assert items[1]["id"] == first["id"]
    assert items[6]["id"] == items[0]["id"]
    assert items[2]["errors"][0]["field"] == "idempotency_key"
    assert items[3]["errors"][0]["field"] == "payload"
    assert items[4]["errors"][0]["field"] == "surprise"
    assert count(engine) == 3


def test_a_job_without_a_handler_is_refused_alone(another_app):
    client = another_app(default_handler="").test_client()
    body = post(client, {"payload": {"task": "nobody"}}, noop()).get_json()
    assert (body["created"], body["invalid"]) == (1, 1)
    assert body["items"][0]["errors"] == [
        {
            "field": "payload.task",
            "rule": f"must name a registered handler ({', '.join(registry.names())})",
            "given": "'nobody'",
        }
    ]


def test_in_a_batch_an_unknown_task_is_refused_alone_and_the_one_that_was_meant_is_named(another_app, engine):
    client = another_app(handlers="tasks.handlers.demo").test_client()
    body = post(client, {"payload": {"task": "slep"}}, noop(), {"payload": {"a": 1}}).get_json()
    assert (body["created"], body["invalid"]) == (2, 1)
    assert body["items"][0]["errors"][0]["rule"].endswith("did you mean 'sleep'?")
    assert count(engine) == 2


def test_a_batch_of_misspelt_tasks_costs_little(another_app):
    client = another_app(handlers="tasks.handlers.demo").test_client()
    began = time.monotonic()
    body = post(client, *({"payload": {"task": f"slep{number}"}} for number in range(10_000))).get_json()
    assert time.monotonic() - began < 5
    assert body["invalid"] == 10_000
    assert "did you mean 'sleep'?" in body["items"][0]["errors"][0]["rule"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "jobs"),
        ({"jobs": []}, "jobs"),
        ({"jobs": {}}, "jobs"),
        ({"jobs": [1] * 10_001}, "jobs"),
        ([], "body"),
    ],
)
def test_a_batch_that_is_none_is_a_422_and_names_the_rule(client, engine, body, field):
    answer = client.post("/jobs/batch", json=body)
    assert answer.status_code == 422
    assert answer.get_json()["errors"][0]["field"] == field
    assert count(engine) == 0


def test_ten_thousand_jobs_are_one_request(client, engine):
    body = post(client, *(noop(n=n) for n in range(10_000))).get_json()
    assert body["created"] == count(engine) == 10_000


def test_a_batch_larger_than_redis_should_hold_is_left_to_the_dispatcher(another_app, engine, redis):
    app = another_app(broker_buffer=10)
    post(app.test_client(), *(noop(n=n) for n in range(50)))
    assert app.extensions["jobs"].flush()
    assert waiting(redis) == []
    with engine.connect() as connection:
        assert (
            connection.execute(text("SELECT count(*) FROM jobs WHERE dispatched_at IS NULL")).scalar() == 50
        )


@statements
def test_batches_with_the_same_keys_at_once_make_one_job_to_a_key(app, engine, monkeypatch, statement):
    monkeypatch.setattr(insert, "STATEMENT_CHARACTERS", statement)
    keys = [f"key-{number}" for number in range(100)]
    answers = []

    def send(order):
        answers.append(post(app.test_client(), *(noop(key) for key in order)))

    threads = [threading.Thread(target=send, args=(keys[::step],)) for step in (1, -1) * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert count(engine) == 100
    # 503: of eight at once two find no connection, and a hundred statements keep the others busy.
    assert {answer.status_code for answer in answers} <= {200, 409, 503}
    bodies = [answer.get_json() for answer in answers if answer.status_code == 200]
    assert sum(body["created"] for body in bodies) == 100


def test_a_body_beyond_the_bound_is_a_413(another_app):
    client = another_app(max_payload_bytes=1024).test_client()
    assert post(client, noop(text="x" * 70_000)).status_code == 413
    assert post(client, *(noop(text="x" * 900) for _ in range(20))).status_code == 200


def test_a_batch_is_stored_at_once_while_redis_says_nothing(another_app, engine, silent_port):
    client = another_app(redis_url=f"redis://127.0.0.1:{silent_port}/0").test_client()
    began = time.monotonic()
    body = post(client, *(noop(n=n) for n in range(500))).get_json()
    assert body["created"] == count(engine) == 500
    assert time.monotonic() - began < 3
