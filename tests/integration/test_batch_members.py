"""A handler adds to its own batch: each part once, however often it is tried, and the batch is not over before."""

from __future__ import annotations

import pytest
from batched import EVENTS, added, count, counts, done, ids_of, made, shown, told
from factories import ended, queued, row_of
from several_tenants import MINE, OTHER, key_of
from several_tenants import made as tenants
from sqlalchemy import text

from tasks.execution import execute_job
from tasks.runtime import runtime
from tasks.testing import run as run_one
from webapp.batches.errors import NotInBatch
from webapp.jobs.errors import JobError, OptionRefused
from webapp.jobs.submitter import SomeRefused


@pytest.fixture
def member(handle, client):
    """Makes a batch with one member, whose handler is `function`; gives batch and member."""

    def of(function, **fields):
        name = handle(function)
        batch = made(client, **fields)
        answer = client.post(
            f"/batches/{batch['id']}/jobs", json={"part": "first", "jobs": [{"payload": {"task": name}}]}
        )
        client.post(f"/batches/{batch['id']}/close")
        return batch["id"], ids_of(answer.json)[0]

    return of


def attempt(engine, job_id):
    """One more attempt of a job, which is due now."""
    with engine.begin() as connection:
        connection.execute(text("UPDATE jobs SET run_at = now() WHERE id = :id"), {"id": job_id})
    ended(execute_job, job_id)


def test_a_part_is_added_once_over_all_attempts(member, engine, client):
    seen = []

    def crawl(payload, context):
        seen.append(context.batch.id)
        seen.append(
            context.batch.add([{"payload": {"task": "noop", "page": n}} for n in range(3)], part="links")
        )
        seen.append(context.batch.add([{"payload": {"task": "noop"}, "priority": 7}]))
        if context.attempt == 1:
            raise ValueError("after they were added")

    batch, job = member(crawl, **EVENTS)
    attempt(engine, job)
    assert counts(client, batch) == (5, 0, 0, 0, 5)
    attempt(engine, job)
    assert counts(client, batch) == (5, 1, 0, 0, 4)
    assert str(seen[0]) == batch
    assert seen[1] == seen[4], "answered as before"
    assert seen[2] == seen[5]
    ids = [str(one.id) for one in (*seen[1], *seen[2])]
    assert [row_of(engine, one).priority for one in ids] == [5, 5, 5, 7]
    assert {str(row_of(engine, one).group_id) for one in ids} == {batch}
    count()
    assert shown(client, batch)["status"] == "closed"
    done(engine, ids)
    count()
    assert (shown(client, batch)["status"], [name for name, _ in told(engine)]) == (
        "completed",
        ["complete", "success"],
    )


def test_what_is_added_is_of_the_same_request_and_trace(handle, client, engine):
    name = handle(lambda _, context: context.batch.add([{"payload": {"task": "noop"}}], part="a") and None)
    batch = made(client)["id"]
    trace = "00-00000000000000000000000000000001-0000000000000002-01"
    answer = client.post(
        f"/batches/{batch}/jobs",
        json={"part": "a", "jobs": [{"payload": {"task": name}}]},
        headers={"X-Request-ID": "r-7", "traceparent": trace},
    )
    attempt(engine, ids_of(answer.json)[0])
    with engine.connect() as connection:
        found = connection.execute(text("SELECT DISTINCT request_id, left(traceparent, 35) FROM jobs"))
        assert [tuple(one) for one in found] == [("r-7", trace[:35])]


def test_a_job_of_no_batch_adds_nothing(handle, engine):
    told_of = []

    def add(payload, context):
        told_of.append(context.batch.id)
        with pytest.raises(NotInBatch):
            context.batch.add([{"payload": {"task": "noop"}}])

    row = queued(engine, task=handle(add))
    attempt(engine, str(row.id))
    assert (told_of, row_of(engine, row.id).status) == ([None], "completed")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (([{"payload": {"task": "noop"}, "priority": 99}], "a"), "jobs.0.priority"),
        (([], "a"), "jobs must have 1 to 10000 items"),
        (([{"payload": {"task": "noop"}}], "#1"), "part must be"),
        (([{"payload": {"task": "noop"}}], ""), "part must be"),
    ],
)
def test_what_breaks_a_rule_is_named_and_nothing_is_added(member, engine, client, given, words):
    refused = []

    def add(payload, context):
        try:
            context.batch.add(*given)
        except OptionRefused as error:
            refused.append(str(error))

    batch, job = member(add)
    attempt(engine, job)
    assert refused[0].startswith(words)
    assert counts(client, batch)[0] == 1


def test_what_cannot_be_added_now_is_said(member, engine, client):
    said = []

    def add(payload, context):
        taken = {"payload": {"task": "noop"}, "idempotency_key": "k"}
        with pytest.raises(SomeRefused) as some:
            context.batch.add([taken, {"payload": {"task": "noop"}}], part="a")
        said.append([isinstance(one, JobError) for one in some.value.answers])

    client.post("/jobs", json={"payload": {"task": "noop", "other": 1}, "idempotency_key": "k"})
    batch, job = member(add)
    attempt(engine, job)
    assert (said, counts(client, batch)) == ([[True, False]], (2, 1, 0, 0, 1))


def test_a_handler_that_adds_is_tested_without_a_server():
    def crawl(payload, context):
        context.batch.add([{"payload": {"task": "noop", "page": 2}}], part="links")

    outcome = run_one(crawl, {}, batch=(known := "01a20bef-39a1-7c11-9d02-6f4be2a3c7d5"))
    assert [(one.name, one.payload) for one in outcome.submitted] == [
        ("links.0", {"task": "noop", "page": 2})
    ]
    assert isinstance(run_one(crawl, {}).exception, NotInBatch), known


def test_batches_in_batches(client, engine):
    outer = made(client, **EVENTS)["id"]
    inner = [made(client, jobs=1, parent=outer, close=True) for _ in range(2)]
    client.post(f"/batches/{outer}/close")
    late = client.post("/batches", json={"parent": outer})
    assert (late.status_code, "is closed" in late.json["detail"]) == (409, True)
    assert counts(client, outer) == (2, 0, 0, 0, 2)
    assert [one["id"] for one in client.get(f"/batches?parent={outer}").json["items"]] == [
        one["id"] for one in reversed(inner)
    ]
    for one in inner:
        done(engine, ids_of(one))
    count()
    assert [shown(client, one["id"])["status"] for one in inner] == ["completed", "completed"]
    assert counts(client, outer) == (2, 2, 0, 0, 0), "their ends are noted in the count's own transaction"
    count()
    assert (shown(client, outer)["status"], [name for name, _ in told(engine)]) == (
        "completed",
        ["complete", "success"],
    )


def test_a_batch_is_at_most_ten_deep(client):
    innermost = made(client)["id"]
    for _ in range(9):
        innermost = made(client, parent=innermost)["id"]
    refused = client.post("/batches", json={"parent": innermost})
    assert (refused.status_code, refused.json["errors"][0]["field"]) == (422, "parent")
    assert client.get(f"/batches/{innermost}").json["total"] == 0


def test_cancelling_and_retrying_go_down(client, engine):
    outer = made(client)["id"]
    inner = made(client, jobs=2, parent=outer)
    empty = made(client, parent=outer)["id"]
    assert client.post(f"/batches/{outer}/cancel").status_code == 202
    # An empty one is over at once, the others with their members.
    assert shown(client, empty)["status"] == "completed"
    assert runtime().keeper.go_on_cancelling() == 2
    count()
    count()
    assert [shown(client, one)["status"] for one in (inner["id"], outer)] == ["cancelled", "cancelled"]


def test_a_part_of_a_member_is_its_own(member, client, engine):
    def add(payload, context):
        context.batch.add([{"payload": {"task": "noop"}}], part="a")

    batch, job = member(add)
    attempt(engine, job)
    assert counts(client, batch)[0] == 2
    other = made(client)["id"]
    assert added(client, other, "a")["created"] == 1


def test_a_batch_and_what_tells_of_it_are_its_tenants(another_app, engine):
    app = another_app(api_auth="keys")
    tenants(app, engine, MINE, OTHER)
    mine, theirs = key_of(app, MINE), key_of(app, OTHER)
    sent = {"jobs": [{"payload": {"task": "noop"}}], "close": True, **EVENTS}
    headers = mine.shown | {"Idempotency-Key": "k"}
    answer = app.test_client().post("/batches", json=sent, headers=headers)
    assert (answer.status_code, answer.json["tenant"]) == (201, MINE)
    other = app.test_client().post("/batches", json=sent, headers=theirs.shown | {"Idempotency-Key": "k"})
    assert other.status_code == 201, "keys of tenants do not meet"
    done(engine, ids_of(answer.json))
    count()
    assert mine(f"/batches/{answer.json['id']}").json["status"] == "completed"
    assert {one["tenant"] for one in mine("/jobs").json["items"]} == {MINE}
    assert mine("/jobs").json["total"] == 3
    assert theirs("/batches").json["items"][0]["id"] == other.json["id"]


def test_what_tells_of_a_batch_goes_by_limits_and_is_refused_by_no_bound(client, engine):
    """Its queue is full, and has slots: the job waits in a lane."""
    client.put("/queues/default", json={"concurrency": 1, "max_depth": 1})
    batch = made(client, jobs=3, **EVENTS)
    assert [one["outcome"] for one in batch["jobs"]["items"]] == ["created", "invalid", "invalid"]
    done(engine, ids_of(batch)[:1])
    client.post("/jobs", json={"payload": {"task": "noop"}})
    client.post(f"/batches/{batch['id']}/close")
    count()
    with engine.connect() as connection:
        lanes = connection.execute(text("SELECT lane FROM jobs WHERE payload ? 'batch'")).scalars().all()
    assert len(lanes) == 2
    assert None not in lanes
