"""Lists of jobs by ids, by several values, without some, by error, worker and times; and with what is made for a list alone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from urllib.parse import quote
from uuid import uuid4

import pytest
from factories import WORKER, claimed, completed, dead_lettered, queued
from sqlalchemy import text
from uuid_utils.compat import uuid7

from webapp.access.model import NewKey, Scope
from webapp.jobs.filters import first_id
from webapp.jobs.options import Terms

MAKERS = {"queued": queued, "processing": claimed, "completed": completed, "failed": dead_lettered}


@pytest.fixture
def made(engine):
    """Jobs in each state of three tasks and two queues, by what they are."""
    return {
        (status, task, queue): str(MAKERS[status](engine, task=task, queue=queue).id)
        for status in MAKERS
        for task in ("noop", "sleep", "fail")
        for queue in ("default", "slow")
    }


@pytest.mark.parametrize(
    ("query", "holds"),
    [
        ("task=noop&task=sleep", lambda _, task, __: task != "fail"),
        ("not_task=noop&not_task=fail", lambda _, task, __: task == "sleep"),
        ("queue=slow&queue=default&task=noop", lambda _, task, __: task == "noop"),
        ("not_queue=slow", lambda _, __, queue: queue == "default"),
        ("queue=slow&queue=nowhere", lambda _, __, queue: queue == "slow"),
        ("status=failed&status=queued", lambda status, _, __: status in {"failed", "queued"}),
        ("not_status=failed&not_status=processing", lambda status, _, __: status in {"completed", "queued"}),
        ("not_status=failed&status=failed&status=completed", lambda status, _, __: status == "completed"),
        (
            "status=completed&status=processing&task=noop&task=fail&queue=slow",
            lambda status, task, queue: (
                status in {"completed", "processing"} and task != "sleep" and queue == "slow"
            ),
        ),
        ("error=E", lambda status, _, __: status == "failed"),
        ("error=some.module.E&task=fail", lambda status, task, _: (status, task) == ("failed", "fail")),
        ("error=Other", lambda *_: False),
        (f"worker={quote(WORKER)}&status=processing", lambda status, _, __: status == "processing"),
        (f"worker={quote(WORKER.partition('/')[0])}", lambda status, _, __: status != "queued"),
        ("worker=host:1", lambda *_: False),
        ("priority=5&priority=9&status=queued", lambda status, _, __: status == "queued"),
        ("priority=0", lambda *_: False),
        (
            "finished_after=2020-01-01T00:00:00Z",
            lambda status, _, __: status in {"completed", "failed"},
        ),
        (
            "finished_after=2020-01-01T00:00:00Z&finished_before=2090-01-01T00:00:00Z&task=noop",
            lambda status, task, _: status in {"completed", "failed"} and task == "noop",
        ),
        ("finished_before=2020-01-01T00:00:00Z", lambda *_: False),
        ("finished_before=9999-12-31T23:00:00Z&status=failed", lambda status, _, __: status == "failed"),
        ("finished_after=2020-01-01T00:00:00Z&status=queued", lambda *_: False),
        ("due_before=2090-01-01T00:00:00Z&status=queued", lambda status, _, __: status == "queued"),
        ("due_after=2090-01-01T00:00:00Z", lambda *_: False),
        ("not_tag=x&task=noop", lambda _, task, __: task == "noop"),
    ],
)
def test_a_list_has_what_is_asked_and_nothing_else(client, made, query, holds):
    wanted = [made[one] for one in reversed(made) if holds(*one)]
    page = client.get(f"/jobs?limit=100&{query}").json
    assert [item["id"] for item in page["items"]] == wanted
    assert (page["total"], page["total_is_estimate"], page["next_cursor"]) == (len(wanted), False, None)
    seen, cursor = [], ""
    while cursor is not None:
        part = client.get(f"/jobs?limit=3&{query}{cursor}").json
        assert part["total"] == len(wanted)
        seen += [item["id"] for item in part["items"]]
        cursor = part["next_cursor"] and f"&cursor={part['next_cursor']}"
    assert seen == wanted


def test_jobs_are_found_by_their_ids_whenever_they_ended(client, engine, made):
    ids, old = list(made.values()), completed(engine).id
    long_ago = first_id(datetime.now(UTC) - timedelta(days=40), timedelta(0))
    with engine.begin() as connection:
        moved = text("UPDATE jobs SET id = :made WHERE id = :id")
        connection.execute(moved, {"id": old, "made": long_ago})
    asked = [*ids[:3], ids[0], str(long_ago), str(uuid7()), str(uuid4())]
    page = client.get("/jobs", query_string={"ids": ",".join(asked), "limit": 2}).json
    assert (page["total"], page["total_is_estimate"], len(page["items"])) == (4, False, 2)
    rest = client.get("/jobs", query_string={"ids": asked, "cursor": page["next_cursor"]}).json
    assert [one["id"] for one in page["items"] + rest["items"]] == [*ids[2::-1], str(long_ago)]
    for wanted in ({"ids": ",".join(ids), "status": "failed"}, {"ids": ids, "task": "sleep"}):
        found = client.get("/jobs", query_string=wanted | {"limit": 100}).json
        name = "failed" if "status" in wanted else "sleep"
        assert {item["id"] for item in found["items"]} == {made[one] for one in made if name in one}
    assert client.get("/jobs?ids=").status_code == 422
    many = ",".join(str(uuid7()) for _ in range(101))
    assert client.get("/jobs", query_string={"ids": many}).status_code == 422


def test_jobs_by_id_need_no_turn_of_searches(app, client, made, monkeypatch):
    monkeypatch.setitem(app.extensions, "turns", None)
    (first, *_) = made.values()
    assert client.get(f"/jobs?ids={first}&payload=%7B%7D").json["total"] == 1


def test_a_job_is_found_by_its_idempotency_key_and_by_its_request(client):
    sent = {"payload": {"task": "noop"}, "idempotency_key": "order-17"}
    job = client.post("/jobs", json=sent, headers={"X-Request-ID": "r-17"}).json
    client.post("/jobs", json={"payload": {"task": "noop"}})
    for query in ("idempotency_key=order-17", f"request_id={job['request_id']}"):
        assert [item["id"] for item in client.get(f"/jobs?{query}").json["items"]] == [job["id"]]
    assert client.get("/jobs?idempotency_key=order-18").json["items"] == []


def test_what_is_newer_is_counted(client, engine):
    ids = [str(queued(engine).id) for _ in range(5)]
    page = client.get(f"/jobs?newer_than={ids[1]}&limit=1").json
    assert ([item["id"] for item in page["items"]], page["total"]) == ([ids[4]], 3)
    assert client.get("/jobs?newer_than=ffffffff-ffff-ffff-ffff-ffffffffffff").json["total"] == 0


def test_a_list_has_a_preview_and_sizes_where_they_are_asked_for(client, engine):
    queued(engine, payload={"task": "noop", "text": "x" * 5_000})
    fields = "id,payload_preview,payload_bytes,result_bytes"
    (item,) = client.get(f"/jobs?fields={fields}").json["items"]
    assert list(item) == fields.split(",")
    assert item["payload_preview"].startswith('{"t')
    assert len(item["payload_preview"]) == 200
    assert item["payload_bytes"] > 50
    assert item["result_bytes"] is None
    assert "payload_preview" not in client.get("/jobs").json["items"][0]


def test_a_preview_is_content(engine, another_app):
    app = another_app(api_auth="keys")
    queued(engine, payload={"task": "noop", "card": "4111"})
    key = app.extensions["access"].create(NewKey("viewer", None, (Scope.JOBS_READ,)), by=None)
    app.extensions["doorkeeper"].book.forget()
    headers = {"Authorization": f"Bearer {key.secret}"}
    answer = app.test_client().get("/jobs?fields=id,payload_preview,payload_bytes", headers=headers)
    (item,) = answer.json["items"]
    assert (item["payload_preview"], item["redacted"]) == (None, True)
    assert "4111" not in answer.text


def test_a_job_says_who_runs_it_and_how_it_came(client, engine):
    job = claimed(engine, terms=Terms())
    shown = client.get(f"/jobs/{job.id}").json
    assert (shown["worker_id"], shown["cancel_requested_at"]) == (WORKER, None)
    assert shown["lease_expires_at"] > shown["last_attempt_at"]
    client.post(f"/jobs/{job.id}/cancel")
    assert client.get(f"/jobs/{job.id}").json["cancel_requested_at"] is not None
    sent = client.post("/jobs", json={"payload": {"task": "noop"}}).json
    shown = client.get(f"/jobs/{sent['id']}").json
    assert shown["request_id"] == sent["request_id"] is not None
    assert shown["dispatched_at"] is not None


def test_a_job_of_a_lane_was_sent_at_no_time(client, engine):
    job = queued(engine)
    with engine.begin() as connection:
        connection.execute(text("UPDATE jobs SET dispatched_at = 'infinity'"))
    assert client.get(f"/jobs/{job.id}").json["dispatched_at"] is None


@pytest.mark.parametrize(
    "query",
    [
        *("error=E:%20x", "error=", "worker=", "priority=10", "newer_than=17", "ids=x", "not_status=gone"),
        "&".join(f"not_status={one}" for one in ("queued", "processing", "completed", "failed", "cancelled")),
        "&".join(f"task=t{number}" for number in range(21)),
        "finished_after=yesterday",
        "cursor=17",
    ],
)
def test_a_filter_that_is_none_is_refused_by_name(client, query):
    answer = client.get(f"/jobs?{query}")
    assert answer.status_code == 422
    assert answer.json["errors"][0]["field"]
