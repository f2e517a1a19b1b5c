"""Submission options over HTTP: what is stored, what is sent, what is refused."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from ending import end_again
from factories import age, attempts_of, claimed, new_job, queued, row_of, tables, waiting
from pydantic import BaseModel, Field, field_validator
from sqlalchemy import text

from tasks.sweeps import dispatch, expire, prune
from webapp.infra.broker.transport import list_of
from webapp.jobs import control, insert, retention, store
from webapp.jobs.handlers import registry
from webapp.jobs.options import Options, Terms
from webapp.jobs.states import AttemptOutcome

FULL = {
    "priority": 8,
    "max_retries": 7,
    "timeout": 2.5,
    "backoff": [1.0, 10.0],
    "tags": ["a", "b"],
    "callback_url": "https://example.org/done",
}


def ahead(**time):
    return (datetime.now(UTC) + timedelta(**time)).isoformat()


def post(client, payload=None, **options):
    return client.post("/jobs", json={"payload": payload or {"task": "noop"}, **options})


def batch(client, *items):
    return client.post("/jobs/batch", json={"jobs": list(items)}).get_json()


def seconds_until(moment):
    return (datetime.fromisoformat(moment) - datetime.now(UTC)).total_seconds()


def errors(answer, status=422):
    assert answer.status_code == status, answer.text
    return {one["field"]: one["rule"] for one in answer.get_json(force=True).get("errors", [])}


@pytest.fixture
def stored(client, service):
    """Submits a job alone, or as one of a batch, and waits for its message; gives it as it is shown."""

    def submit(how, payload=None, **options):
        if how == "alone":
            answer = post(client, payload, **options)
            assert answer.status_code == 201, answer.text
            assert service.flush()
            shown = client.get(f"/jobs/{answer.json['id']}").json
            assert answer.json == shown
            return shown
        found = batch(
            client, {"payload": {"task": "noop"}}, {"payload": payload or {"task": "noop"}, **options}
        )
        assert found["created"] == 2, found
        assert service.flush()
        return client.get(f"/jobs/{found['items'][1]['id']}").json

    return submit


both = pytest.mark.parametrize("how", ["alone", "in a batch"])


@both
def test_what_is_asked_is_stored_and_shown(stored, how):
    job = stored(how, **FULL, expires_at=ahead(hours=1))
    assert {name: job[name] for name in FULL} == FULL
    assert 3_590 < seconds_until(job["expires_at"]) < 3_600


@both
def test_what_is_not_asked_is_as_ever(stored, how):
    job = stored(how, tags=[])
    assert (job["priority"], job["max_retries"], job["timeout"], job["queue"]) == (5, 3, 300.0, "default")
    assert job["tags"] == []
    assert job["expires_at"] is job["backoff"] is job["callback_url"] is job["cancel_reason"] is None
    assert job["run_at"] == job["created_at"]


@both
@pytest.mark.parametrize("option", ["delay", "run_at"])
@pytest.mark.parametrize("seconds", [3_600, 50 * 365 * 86_400])
def test_a_job_for_later_is_not_sent_before_it_is_due(stored, how, option, seconds, parts, redis):  # noqa: PLR0917 - fixtures
    asked = {option: seconds if option == "delay" else ahead(seconds=seconds)}
    job = stored(how, **asked)
    assert seconds - 60 < seconds_until(job["run_at"]) <= seconds
    later = UUID(job["id"])
    assert job["id"] not in "".join(waiting(redis))
    assert row_of(parts.engine, later).dispatched_at is None
    age(parts.engine, "run_at", seconds, later)
    dispatch.run_dispatch(parts)
    assert job["id"] in "".join(waiting(redis))


@both
def test_a_time_that_has_passed_is_now(stored, how, redis):
    job = stored(how, run_at="2020-01-01T00:00:00Z")
    assert job["run_at"] == job["created_at"]
    assert job["id"] in "".join(waiting(redis))


@both
def test_a_job_may_go_to_another_queue(stored, how, handle, redis):
    handle(lambda payload, context: None, queue="mail")
    job = stored(how, queue="mail")
    assert job["queue"] == "mail"
    assert job["id"] in "".join(waiting(redis, "mail"))


@pytest.mark.parametrize("name", ["nobody-listens", "maintenance", "a b"])
def test_an_unknown_queue_is_refused_and_the_known_ones_are_named(client, engine, name):
    found = errors(post(client, queue=name))
    assert set(found) == {"queue"}
    assert "(default)" in found["queue"]
    (item,) = batch(client, {"payload": {"task": "noop"}, "queue": name})["items"]
    assert item["outcome"] == "invalid"
    assert item["errors"][0]["field"] == "queue"
    assert tables(engine) == []


def test_a_queue_of_the_settings_is_known(another_app, monkeypatch, closed_port):
    monkeypatch.setattr(registry, "_declared", set())
    app = another_app(queues="slow, fast", redis_url=f"redis://127.0.0.1:{closed_port}/0")
    assert app.extensions["settings"].queue_names == ("slow", "fast")
    assert post(app.test_client(), queue="fast").json["queue"] == "fast"
    assert errors(post(app.test_client(), queue="other"))


def test_each_priority_waits_in_a_list_of_its_own(client, service, broker, redis):
    ids = {priority: post(client, priority=priority).json["id"] for priority in (0, 9, 5, 4, 6)}
    assert service.flush()
    order = [json.loads(message)["headers"]["id"] for message in waiting(redis)]
    assert order == [ids[priority] for priority in (9, 6, 5, 4, 0)]
    assert redis.llen("default") == redis.llen(list_of("default", 9)) == 1
    assert broker.room.length("default") == 5


def test_the_dispatcher_keeps_the_order_of_priorities(engine, parts, redis):
    rows = {priority: queued(engine, terms=Terms(priority=priority)) for priority in (1, 8, 5)}
    assert dispatch.run_dispatch(parts) == 3
    order = [json.loads(message)["headers"]["id"] for message in waiting(redis)]
    assert order == [str(rows[priority].id) for priority in (8, 5, 1)]


class Mail(BaseModel):
    to: str = Field(min_length=3)
    copies: list[int] = []


@pytest.fixture
def mail(handle):
    return handle(
        lambda payload, context: None,
        priority=7,
        backoff={"base": 3.0},
        tags=("mail",),
        expires_in=60.0,
        model=Mail,
    )


@both
def test_a_handlers_defaults_hold_where_nothing_is_asked(stored, how, mail):
    payload = {"task": mail, "to": "ada"}
    job = stored(how, payload)
    assert (job["priority"], job["backoff"], job["tags"]) == (7, {"base": 3.0}, ["mail"])
    assert 50 < seconds_until(job["expires_at"]) <= 60
    later = stored(how, payload, delay=100)
    assert 150 < seconds_until(later["expires_at"]) <= 160
    asked = stored(how, payload, priority=0, backoff=[1], tags=["x", "mail"], expires_at=ahead(hours=1))
    assert (asked["priority"], asked["backoff"], asked["tags"]) == (0, [1.0], ["x", "mail"])
    assert seconds_until(asked["expires_at"]) > 3_500


def test_a_payload_that_does_not_fit_its_handler_is_refused_field_by_field(client, mail, engine):
    wrong = {"task": mail, "to": "x", "copies": [1, "two"]}
    assert set(errors(post(client, wrong))) == {"payload.to", "payload.copies.1"}
    assert errors(post(client, {"task": mail})) == {"payload.to": "is required"}
    items = batch(client, {"payload": wrong}, {"payload": {"task": mail, "to": "ada"}})["items"]
    assert [one["outcome"] for one in items] == ["invalid", "created"]
    assert {one["field"] for one in items[0]["errors"]} == {"payload.to", "payload.copies.1"}
    assert len(tables(engine)) == 1


def test_an_option_out_of_bounds_names_its_field_also_in_a_batch(client, engine):
    assert set(errors(post(client, priority=10, delay=-1))) == {"priority", "delay"}
    (item,) = batch(client, {"payload": {}, "backoff": {"base": 0}})["items"]
    assert [one["field"] for one in item["errors"]] == ["backoff.base"]
    assert tables(engine) == []


# Expiry.


def test_a_job_that_expires_before_it_could_start_is_refused(client, engine):
    for late in ({"expires_at": ahead(seconds=-1)}, {"expires_at": ahead(hours=1), "delay": 3_700}):
        assert set(errors(post(client, **late))) == {"expires_at"}
        (item,) = batch(client, {"payload": {"task": "noop"}, **late})["items"]
        assert [one["field"] for one in item["errors"]] == ["expires_at"]
        assert set(errors(keyed(client, field="k", **late))) == {"expires_at"}
    assert tables(engine) == []


def test_a_request_that_is_sent_again_after_its_job_expired_gets_that_job(client, monkeypatch):
    request = {"field": "k", "expires_at": ahead(hours=1)}
    first = keyed(client, **request)
    monkeypatch.setattr(Options, "is_late", lambda self, now: True)
    again = keyed(client, **request)
    assert (again.status_code, again.json["id"]) == (200, first.json["id"])
    assert errors(keyed(client, **request, priority=1))


def expired(engine, **changes):
    row = queued(engine, terms=Terms(expires_in=60.0), **changes)
    age(engine, "expires_at", 61, row.id)
    return row


def test_a_job_that_was_not_started_in_time_is_cancelled_and_says_why(engine, parts, client):
    row, other = expired(engine), queued(engine, terms=Terms(expires_in=60.0))
    assert expire.run_expiry(parts) == 1
    job = client.get(f"/jobs/{row.id}").json
    assert (job["status"], job["cancel_reason"], job["attempt"]) == ("cancelled", "expired", 0)
    assert job["finished_at"] is not None
    assert row_of(engine, other.id).status == "queued"
    assert expire.run_expiry(parts) == 0


def test_an_expired_job_is_neither_sent_nor_claimed(engine, parts, redis):
    waits, sent = expired(engine), expired(engine, dispatched=True)
    age(engine, "dispatched_at", 1_000, sent.id)
    assert dispatch.run_dispatch(parts) == 0
    assert waiting(redis) == []
    with engine.begin() as connection:
        assert store.claim(connection, [waits.id, sent.id], worker_id="w/1", lease=60) == []


def test_a_job_that_was_started_in_time_is_tried_again_after_its_time(engine, parts):
    claim = claimed(engine, terms=Terms(expires_in=60.0))
    with engine.begin() as connection:
        assert end_again(connection, claim, AttemptOutcome.FAILED, None, delay=0)
    age(engine, "expires_at", 61, claim.id)
    assert expire.run_expiry(parts) == 0
    with engine.begin() as connection:
        assert len(store.claim(connection, [claim.id], worker_id="w/1", lease=60)) == 1


def test_a_job_that_runs_is_not_cancelled_for_its_age(engine, parts):
    claim = claimed(engine, terms=Terms(expires_in=60.0))
    age(engine, "expires_at", 61, claim.id)
    assert expire.run_expiry(parts) == 0
    assert row_of(engine, claim.id).status == "processing"


def test_expired_jobs_are_cancelled_batch_by_batch(engine, parts):
    for _ in range(5):
        expired(engine)
    assert expire.run_expiry(parts, batch=2) == 5
    expire.expire()


def test_two_sweeps_at_once_cancel_a_job_once(engine):
    expired(engine)
    with engine.begin() as one, engine.begin() as two:
        assert retention.cancel_expired(one, 10) == 1
        assert retention.cancel_expired(two, 10) == 0


def test_an_expired_job_that_is_queued_again_does_not_expire_again(engine, parts):
    row = expired(engine)
    expire.run_expiry(parts)
    with engine.begin() as connection:
        assert control.requeue(connection, row.id)
    assert expire.run_expiry(parts) == 0
    found = row_of(engine, row.id)
    assert (found.status, found.expires_at, found.cancel_reason) == ("queued", None, None)


# Keys.


def keys(engine):
    with engine.connect() as connection:
        return connection.execute(text("SELECT * FROM idempotency_keys")).mappings().all()


def run_out(engine):
    with engine.begin() as connection:
        connection.execute(text("UPDATE idempotency_keys SET expires_at = now()"))


def keyed(client, header=None, field=None, payload=None, **options):
    body = {"payload": payload or {"task": "noop"}, **options} | ({"idempotency_key": field} if field else {})
    return client.post("/jobs", json=body, headers={"Idempotency-Key": header} if header is not None else {})


def test_a_key_in_the_header_is_as_good_as_in_the_body(client, engine):
    first = keyed(client, '"order-17"')
    assert (first.status_code, first.json["idempotency_key"]) == (201, "order-17")
    assert "Idempotency-Replayed" not in first.headers
    for again in (
        keyed(client, "order-17"),
        keyed(client, field="order-17"),
        keyed(client, '"order-17"', "order-17"),
    ):
        assert (again.status_code, again.json["id"]) == (200, first.json["id"])
        assert again.headers["Idempotency-Replayed"] == "true"
    assert len(tables(engine)) == 1


@pytest.mark.parametrize(
    ("header", "field"), [('"a"', "b"), ("", None), ('"a', None), ('""', None), ("k" * 256, None)]
)
def test_keys_that_differ_or_are_none_are_a_bad_request(client, engine, header, field):
    assert errors(keyed(client, header, field), 400) == {}
    assert tables(engine) == []


def test_a_batch_takes_no_key_for_all(client, engine):
    body = {"jobs": [{"payload": {"task": "noop"}}]}
    answer = client.post("/jobs/batch", json=body, headers={"Idempotency-Key": "k"})
    assert answer.status_code == 400
    assert "each item has its own" in answer.get_json(force=True)["detail"]
    assert tables(engine) == []


@pytest.mark.parametrize(
    "other",
    [{"priority": 1}, {"delay": 1}, {"tags": ["a"]}, {"payload": {"task": "noop", "n": 1}}, {"backoff": [1]}],
)
def test_the_same_key_with_another_request_is_refused(client, engine, other):
    keyed(client, field="k")
    answer = keyed(client, field="k", **other)
    assert answer.status_code == 422
    items = batch(client, {"payload": {"task": "noop"}, "idempotency_key": "k"} | other)["items"]
    assert items[0]["outcome"] == "invalid"
    assert len(tables(engine)) == 1


def test_a_batch_and_a_single_submission_share_their_keys(client, engine):
    whole = {"payload": {"task": "noop"}, "idempotency_key": "k", **FULL}
    first = batch(client, whole, whole, {"payload": {"task": "noop"}})
    assert [one["outcome"] for one in first["items"]] == ["created", "existing", "created"]
    again = client.post("/jobs", json=whole)
    assert (again.status_code, again.json["id"]) == (200, first["items"][0]["id"])
    assert len(tables(engine)) == 2


@both
def test_a_key_that_ran_out_can_be_used_again(client, engine, how):
    first = keyed(client, field="k").json["id"]
    run_out(engine)
    if how == "alone":
        answer = keyed(client, field="k", priority=9)
        assert answer.status_code == 201
        second = answer.json["id"]
    else:
        (item,) = batch(client, {"payload": {"task": "noop"}, "idempotency_key": "k", "priority": 9})["items"]
        assert item["outcome"] == "created"
        second = item["id"]
    assert second != first
    (kept,) = keys(engine)
    assert (str(kept["job_id"]), kept["key"]) == (second, "k")
    assert kept["expires_at"] - kept["created_at"] == timedelta(days=1)
    assert keyed(client, field="k", priority=9).json["id"] == second


def test_a_key_lives_as_long_as_the_setting_says(another_app, engine):
    keyed(another_app(idempotency_ttl=60).test_client(), field="k")
    (kept,) = keys(engine)
    assert kept["expires_at"] - kept["created_at"] == timedelta(seconds=60)


def test_a_key_whose_job_was_pruned_is_gone_and_makes_no_second_job(client, engine):
    job_id = keyed(client, field="k").json["id"]
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM jobs"))
    answer = keyed(client, field="k")
    assert answer.status_code == 410
    assert job_id in answer.get_json(force=True)["detail"]
    (item,) = batch(client, {"payload": {"task": "noop"}, "idempotency_key": "k"})["items"]
    assert item == {"outcome": "existing", "id": job_id}
    assert tables(engine) == []


def test_keys_that_ran_out_are_pruned_and_others_are_not(client, engine, parts):
    keyed(client, field="old")
    run_out(engine)
    keyed(client, field="new")
    assert prune.run_key_prune(parts, 1.0) == 1
    assert [one["key"] for one in keys(engine)] == ["new"]
    prune.prune()


def test_a_job_without_a_key_leaves_none(client, engine):
    post(client)
    batch(client, {"payload": {"task": "noop"}})
    assert keys(engine) == []


def test_a_key_is_not_taken_when_its_job_is_not_stored(engine):
    with engine.connect() as connection:
        insert.insert_once(connection, new_job(idempotency_key="k"), dispatched=False)
        connection.rollback()
    assert keys(engine) == []
    assert attempts_of(engine, new_job().id) == []


class Broken(BaseModel):
    to: str

    @field_validator("to")
    @classmethod
    def _known(cls, value: str) -> str:
        return {"ada": "ada@example.org"}[value]


def test_a_model_that_is_broken_refuses_the_payload_and_says_so(client, handle, engine):
    name = handle(lambda payload, context: None, model=Broken)
    answer = client.post("/jobs", json={"payload": {"task": name, "to": "bob"}})
    assert answer.status_code == 422
    assert (
        answer.json["errors"][0]["rule"]
        == f"could not be checked: the model of handler {name!r} raised KeyError"
    )
    items = client.post(
        "/jobs/batch", json={"jobs": [{"payload": {"task": name, "to": to}} for to in ("bob", "ada")]}
    ).json
    assert [item["outcome"] for item in items["items"]] == ["invalid", "created"]
