"""What was sent comes back equal, in the answer and in the handler, and no longer than it was."""

from __future__ import annotations

import json
import math

import pytest
from factories import claimed, completed, row_of
from sqlalchemy import Text, cast, func, literal_column, select, table, text

from tasks import chunk, execution
from tasks.sweeps import callbacks as delivering
from webapp.jobs import columns, ends, store
from webapp.queues import tickets

#: Numbers that `jsonb` alone gives back as something else, or much longer, and some that it does not.
NUMBERS = [1e16, 1e22, 1e23, 1e308, -1e308, 1.7976931348623157e308, -0.0, 0.0, 5e-324, 1e-300, 1e-7, 0.1]
NUMBERS += [1.0, 100.0, 1e15, 2.5e21, -3e-12, 9007199254740993, 2**63 - 1, -(2**63), 0, 12345678901234567.0]
#: Texts that look like such numbers.
WORDS = ["1e+22", "e-17", "-0.0", " 1e+300,", "[1e+300]", "6e-4b7e-11"]
PAYLOAD = {"task": "noop", "in": {"a": [NUMBERS, {str(n): n for n in NUMBERS}]}, "words": WORDS}


def same(one, other):
    """True if two JSON values are equal, of one type, and zeros of one sign."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def text_of(payload):
    return json.dumps(payload)


@pytest.fixture(params=["alone", "in-a-batch", "with-options", "keyed"])
def sent(request, client):
    """The id of a job with all of these numbers, and its request."""
    body = {"payload": PAYLOAD}
    if request.param == "with-options":
        body |= {"priority": 7, "tags": ["numbers"]}
    if request.param == "keyed":
        body |= {"idempotency_key": "numbers"}
    if request.param == "in-a-batch":
        given = [body, {"payload": {"task": "noop"}}, body | {"priority": 3}]
        return client.post("/jobs/batch", json={"jobs": given}).json["items"][2]["id"], given[2]
    return client.post("/jobs", json=body).json["id"], body


def test_numbers_come_back_as_they_were_sent(sent, client, engine):
    job_id, _ = sent
    assert same(client.get(f"/jobs/{job_id}").json["payload"], PAYLOAD)
    shown = [one["payload"] for one in client.get("/jobs").json["items"] if one["id"] == job_id]
    assert same(shown, [PAYLOAD])
    assert same(row_of(engine, job_id).payload, PAYLOAD)


@pytest.mark.parametrize(
    "form", ["1E22", "1e22", "10000000000000000000000.0", "1.0e+22", "-0.0", "-0.0e0", "1E-9"]
)
def test_a_number_is_the_same_however_it_was_written(client, form):
    raw = f'{{"payload": {{"task": "noop", "x": {form}}}}}'
    job = client.post("/jobs", data=raw, content_type="application/json").json
    back = client.get(f"/jobs/{job['id']}").json["payload"]["x"]
    assert isinstance(back, float)
    assert (back, math.copysign(1, back)) == (float(form), math.copysign(1, float(form)))


def test_what_comes_back_is_the_same_request(client):
    body = {"payload": PAYLOAD, "idempotency_key": "k"}
    job = client.post("/jobs", json=body).json
    for shown in (job, client.get(f"/jobs/{job['id']}").json, client.get("/jobs").json["items"][0]):
        again = client.post("/jobs", json={"payload": shown["payload"], "idempotency_key": "k"})
        assert (again.status_code, again.json["id"]) == (200, job["id"])
        assert same(again.json["payload"], PAYLOAD)


def test_a_large_number_grows_nowhere(client, engine):
    payload = {"task": "noop", "x": [1e308] * 2_000 + [5e-324] * 1_000}
    sent = len(json.dumps(payload))
    job_id = client.post("/jobs", json={"payload": payload}).json["id"]
    for answer in (client.get(f"/jobs/{job_id}"), client.get("/jobs")):
        assert len(answer.data) < 1.2 * sent + 2_000
    with engine.connect() as connection:
        wire = select(func.octet_length(cast(literal_column(columns.as_sent("payload")), Text)))
        assert connection.execute(wire.select_from(table("jobs"))).scalar_one() <= sent


def test_the_handler_gets_what_was_sent(client, engine, handle, parts):
    seen = []
    task = handle(lambda payload, context: seen.append(payload))
    payload = PAYLOAD | {"task": task}
    ids = [client.post("/jobs", json={"payload": payload}).json["id"] for _ in range(3)]
    execution.execute_job(ids[0])
    with engine.begin() as connection:
        claims = store.claim(connection, ids[1:2], worker_id="w", lease=60.0)
        taker = tickets.ClaimTerms(10, "w", 60.0)
        connection.execute(text("UPDATE jobs SET dispatched_at = NULL"))
        claims += tickets.claim_due(connection, tickets.Ticket("default", task, 300.0), taker)
    chunk.Chunk(parts, claims).run()
    assert len(seen) == 3
    assert all(same(one, payload) for one in seen)


@pytest.mark.parametrize(
    "result", [1e22, -0.0, [1e308], {"x": {"y": [5e-324, 1e16]}}, 10**30, {"id": "1e-17"}]
)
def test_a_result_comes_back_as_it_was_returned(client, engine, result):
    one = completed(engine, result=text_of(result))
    many = claimed(engine)
    with engine.begin() as connection:
        assert ends.complete_many(connection, [ends.completed(many, text_of(result), 0.0, 0.1)]) == 1
    for claim in (one, many):
        assert same(client.get(f"/jobs/{claim.id}").json["result"], result)


def test_a_callback_tells_the_result_as_it_was_returned(parts, engine):
    job = completed(engine, result=text_of({"x": NUMBERS}))
    with engine.begin() as connection:
        connection.execute(text("UPDATE jobs SET callback_url = 'https://example.org'"))
    assert delivering.run_callbacks(parts) == 1
    with engine.connect() as connection:
        told = connection.execute(
            text("SELECT id FROM jobs WHERE callback_of = :id"), {"id": job.id}
        ).scalar_one()
    assert same(row_of(engine, told).payload["json"]["data"]["result"], {"x": NUMBERS})


@pytest.mark.parametrize("said", [(1e22, 1e300), (3, 40), (0.5, 1.0), (2**40, 2**50)])
def test_progress_comes_back_as_it_was_said(client, parts, handle, said):
    shown = []

    def says(payload, context):
        context.progress(*said)
        shown.append(client.get(f"/jobs/{context.job_id}").json["progress"])

    job_id = client.post("/jobs", json={"payload": {"task": handle(says)}}).json["id"]
    execution.execute_job(job_id)
    assert (shown[0]["done"], shown[0]["total"]) == said
    assert len(json.dumps(shown)) < 150


def test_most_jobs_keep_one_copy(client, engine):
    client.post("/jobs", json={"payload": {"task": "noop", "x": [0.1, 17, 1e-5], "id": "3e-4b7e-17"}})
    client.post("/jobs", json={"payload": {"task": "noop", "x": 1e22}})
    with engine.connect() as connection:
        kept = connection.execute(text("SELECT payload_as_sent IS NOT NULL FROM jobs ORDER BY id")).scalars()
        assert list(kept) == [False, True]


def test_a_search_finds_a_number_however_it_is_kept(client):
    job_id = client.post("/jobs", json={"payload": {"task": "noop", "x": 1e22}}).json["id"]
    for wanted in ('{"x": 1e22}', '{"x": 10000000000000000000000.0}'):
        items = client.get("/jobs", query_string={"payload": wanted}).json["items"]
        assert [one["id"] for one in items] == [job_id]
