"""Of a result that cannot be kept the job says why, beside it and never in its place, whatever way it was run in."""

from __future__ import annotations

import pytest
from factories import attempts_of, queued, row_of
from sqlalchemy import text

from tasks import chunk, execution
from tasks.attempt import claims
from tasks.sweeps import callbacks as delivering
from webapp.infra.broker.hints import Ticket

NOTE = "bytes have no form in JSON: encode them, as base64 for example"


@pytest.fixture
def odd(handle):
    """A handler every second of whose results cannot be kept."""
    return handle(lambda payload, context: b"x" if payload["n"] % 2 else {"n": payload["n"]})


def jobs(engine, task, count):
    return [queued(engine, task=task, payload={"task": task, "n": n}) for n in range(count)]


def outcomes(engine, rows):
    found = [row_of(engine, row.id) for row in rows]
    return [(row.status, row.result, row.result_note) for row in found]


def expected(count):
    return [("completed", None, NOTE) if n % 2 else ("completed", {"n": n}, None) for n in range(count)]


def test_of_a_job_alone(engine, odd, client):
    rows = jobs(engine, odd, 2)
    for row in rows:
        execution.execute_job.run(str(row.id))
    assert outcomes(engine, rows) == expected(2)
    shown = client.get(f"/jobs/{rows[1].id}").json
    assert (shown["status"], shown["result"], shown["result_note"]) == ("completed", None, NOTE)
    assert client.get(f"/jobs/{rows[0].id}").json["result_note"] is None
    assert {one["id"]: one["result_note"] for one in client.get("/jobs").json["items"]} == {
        str(rows[0].id): None,
        str(rows[1].id): NOTE,
    }


def test_of_a_job_in_a_chunk_beside_others(engine, odd, parts):
    rows = jobs(engine, odd, 5)
    chunk.Chunk(parts, claims.claim_all(parts, [row.id for row in rows])).run()
    assert outcomes(engine, rows) == expected(5)
    for row in rows:
        (attempt,) = attempts_of(engine, row.id)
        assert attempt.outcome == "completed"
        assert attempt.started_at <= attempt.ended_at


def test_a_chunk_with_a_note_goes_on_with_its_ticket(engine, odd, parts, monkeypatch):
    rows = jobs(engine, odd, 4)
    monkeypatch.setattr(parts.broker.paces, "chunk_size", lambda task, work: 2)
    ticket = Ticket("default", odd, 300.0)
    claimed = claims.claim_due(parts, ticket)
    while claimed:
        claimed = chunk.Chunk(parts, claimed, ticket=ticket).run()
    assert outcomes(engine, rows) == expected(4)


def test_a_callback_tells_the_note(engine, odd, parts):
    rows = jobs(engine, odd, 2)
    with engine.begin() as connection:
        connection.execute(text("UPDATE jobs SET callback_url = 'https://example.org'"))
    for row in rows:
        execution.execute_job.run(str(row.id))
    assert delivering.run_callbacks(parts) == 2
    with engine.connect() as connection:
        told = connection.execute(
            text("SELECT payload FROM jobs WHERE callback_of IS NOT NULL ORDER BY callback_of")
        )
        data = [row.payload["json"]["data"] for row in told]
    assert [(one["result"], one["result_note"]) for one in data] == [({"n": 0}, None), (None, NOTE)]
