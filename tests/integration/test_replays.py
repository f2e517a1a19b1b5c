"""The same request under the same key is answered with its job, whatever a deploy has changed since."""

from __future__ import annotations

import pytest
from factories import tables
from pydantic import BaseModel
from sqlalchemy import text

from webapp.jobs.handlers import Handler, registry
from webapp.outbound import urls
from webapp.settings import current

KEY = "order-17"


class Narrow(BaseModel):
    """A payload that must have what the first request does not have."""

    size: int


@pytest.fixture
def strict(another_app):
    """An application without a default handler."""
    return another_app(default_handler="")


def without_task(monkeypatch):
    monkeypatch.delitem(registry._handlers, "dropped")


def with_model(monkeypatch):
    known = registry._handlers["dropped"]
    monkeypatch.setitem(registry._handlers, "dropped", Handler("dropped", known.run, model=Narrow))


def without_queue(monkeypatch):
    monkeypatch.setitem(registry._handlers, "dropped", Handler("dropped", registry._handlers["dropped"].run))


def without_port(monkeypatch):
    closed = current().model_copy(update={"http_allowed_ports": "443"})
    monkeypatch.setattr(urls, "current", lambda: closed)


DEPLOYS = {
    "the task is dropped": (without_task, {}),
    "the task's model is narrower": (with_model, {}),
    "the queue is dropped": (without_queue, {"queue": "test-dropped"}),
    "the callback's port is closed": (without_port, {"callback_url": "http://example.org/told"}),
}


@pytest.fixture(params=DEPLOYS, ids=[name.replace(" ", "-") for name in DEPLOYS])
def stored(request, monkeypatch, client, handle, strict):
    """A job that was taken before a deploy, its request, and the application after it."""
    deploy, options = DEPLOYS[request.param]
    handle(lambda payload, context: None, queue="test-dropped")
    known = registry._handlers.pop("test.0")
    monkeypatch.setitem(registry._handlers, "dropped", known)
    wanted = {"payload": {"task": "dropped", "n": 1}, "idempotency_key": KEY, **options}
    first = client.post("/jobs", json=wanted)
    assert first.status_code == 201, first.get_json(force=True)
    deploy(monkeypatch)
    return first.json, wanted, strict.test_client()


def test_a_replay_after_a_deploy_is_answered_with_the_stored_job(stored, engine):
    job, wanted, client = stored
    again = client.post("/jobs", json=wanted)
    assert (again.status_code, again.json, again.headers["Idempotency-Replayed"]) == (200, job, "true")
    new = client.post("/jobs", json=wanted | {"idempotency_key": "another"})
    assert new.status_code == 422
    assert len(tables(engine)) == 1


def test_a_replay_in_a_batch_after_a_deploy_is_answered_with_the_stored_job(stored, engine):
    job, wanted, client = stored
    other = wanted | {"payload": {**wanted["payload"], "n": 2}}
    items = client.post(
        "/jobs/batch", json={"jobs": [wanted, wanted | {"idempotency_key": "another"}, other]}
    ).json["items"]
    assert [one["outcome"] for one in items] == ["existing", "invalid", "invalid"]
    assert items[0]["id"] == job["id"]
    assert len(tables(engine)) == 1


def test_a_replay_after_a_deploy_whose_job_was_pruned_is_gone(stored, engine):
    job, wanted, client = stored
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM jobs"))
    answer = client.post("/jobs", json=wanted)
    assert answer.status_code == 410
    assert job["id"] in answer.get_json(force=True)["detail"]


def test_a_key_that_has_run_out_answers_for_no_refused_request(stored, engine):
    _, wanted, client = stored
    with engine.begin() as connection:
        connection.execute(text("UPDATE idempotency_keys SET expires_at = now()"))
    assert client.post("/jobs", json=wanted).status_code == 422
    (item,) = client.post("/jobs/batch", json={"jobs": [wanted]}).json["items"]
    assert item["outcome"] == "invalid"
