"""Batches over HTTP: what is taken, once; what is counted, exactly; what is told, once."""

from __future__ import annotations

import threading
from functools import partial

import pytest
from batched import (
    EVENTS,
    JOB,
    NONE,
    added,
    begun,
    count,
    counts,
    dead,
    done,
    ids_of,
    made,
    shown,
    told,
)
from sqlalchemy import text

from webapp.batches import service
from webapp.batches.errors import BatchClosed


def names_of(engine):
    return [name for name, _ in told(engine)]


def test_a_batch_is_made_filled_closed_and_tells_of_its_end_once(client, engine):
    batch = made(client, name="import", **EVENTS)
    assert (batch["status"], batch["total"], batch["on_success"]["payload"]) == (
        "open",
        0,
        {"task": "noop", "is": "success"},
    )
    ids = [*ids_of(added(client, batch["id"], "a", 2)), *ids_of(added(client, batch["id"], "b"))]
    assert counts(client, batch["id"]) == (3, 0, 0, 0, 3)
    done(engine, ids[:2])
    assert counts(client, batch["id"]) == (3, 2, 0, 0, 1), "exact, counted or not"
    assert count() == 2
    assert counts(client, batch["id"]) == (3, 2, 0, 0, 1)
    assert client.post(f"/batches/{batch['id']}/close").json["status"] == "closed"
    assert names_of(engine) == []
    done(engine, ids[2:])
    count()
    over = shown(client, batch["id"])
    assert (over["status"], over["finished_at"] is not None, over["complete_job_id"] is not None) == (
        "completed",
        True,
        True,
    )
    assert told(engine) == [
        (
            name,
            {
                "id": batch["id"],
                "name": "import",
                "event": name,
                "totals": {"total": 3, "completed": 3, "failed": 0, "cancelled": 0},
            },
        )
        for name in ("complete", "success")
    ]
    count()
    client.post(f"/batches/{batch['id']}/close")
    assert names_of(engine) == ["complete", "success"]


def test_a_part_that_is_sent_again_is_answered_as_before(client, engine):
    batch = made(client)["id"]
    jobs = [JOB, {"payload": 17}, {"payload": {"task": "noop"}, "idempotency_key": "k"}]
    body = {"part": "a", "jobs": jobs}
    first = client.post(f"/batches/{batch}/jobs", json=body)
    again = client.post(f"/batches/{batch}/jobs", json=body)
    assert (first.status_code, first.json) == (200, again.json)
    assert (first.json["created"], first.json["invalid"]) == (2, 1)
    assert "Idempotency-Replayed" not in first.headers
    assert again.headers["Idempotency-Replayed"] == "true"
    client.post(f"/batches/{batch}/close")
    assert client.post(f"/batches/{batch}/jobs", json=body).json == first.json, "closed or not"
    assert counts(client, batch)[0] == 2
    other = client.post(f"/batches/{batch}/jobs", json=body | {"jobs": [JOB]})
    assert (other.status_code, other.json["errors"][0]["field"]) == (422, "part")
    refused = client.post(f"/batches/{batch}/jobs", json={"part": "b", "jobs": [JOB]})
    assert (refused.status_code, "takes no more jobs" in refused.json["detail"]) == (409, True)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM jobs")).scalar() == 2


def test_a_part_of_which_nothing_was_stored_may_be_mended(client):
    batch = made(client)["id"]
    wrong = client.post(f"/batches/{batch}/jobs", json={"part": "a", "jobs": [{"payload": 17}]})
    assert (wrong.status_code, wrong.json["invalid"]) == (200, 1)
    assert added(client, batch, "a")["created"] == 1


@pytest.mark.parametrize("name", ["\0", "ä"])
def test_what_is_answered_about_an_item_is_kept_whatever_it_repeats(client, name):
    batch = made(client)["id"]
    body = {"part": "1", "jobs": [JOB, {**JOB, name: 1}]}
    first, again = (client.post(f"/batches/{batch}/jobs", json=body) for _ in range(2))
    assert (first.status_code, again.json) == (200, first.json)
    assert [one["outcome"] for one in first.json["items"]] == ["created", "invalid"]
    assert client.post("/batches", json={"jobs": [{name: 1}]}).status_code == 201


def test_a_job_that_is_there_already_is_no_member(client):
    client.post("/jobs", json=JOB | {"idempotency_key": "k"})
    batch = made(client, jobs=0)["id"]
    given = [JOB | {"idempotency_key": "k"}, JOB | {"idempotency_key": "k"}]
    answer = client.post(f"/batches/{batch}/jobs", json={"part": "a", "jobs": given})
    assert (answer.json["existing"], counts(client, batch)[0]) == (2, 0)


def test_a_batch_comes_with_its_jobs_once(client):
    body = {"jobs": [JOB, {"payload": 17}], "close": True, "on_complete": JOB}
    send = partial(client.post, "/batches", headers={"Idempotency-Key": "import-1"})
    first, again = send(json=body), send(json=body)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json["id"] == again.json["id"]
    assert first.json["jobs"] == again.json["jobs"]
    assert (first.json["jobs"]["created"], first.json["status"], first.json["total"]) == (1, "closed", 1)
    other = send(json=body | {"name": "another"})
    assert (other.status_code, other.json["errors"][0]["field"]) == (422, "Idempotency-Key")
    assert len(client.get("/batches").json["items"]) == 1


def test_one_that_is_empty_and_closed_is_over_at_once(client, engine):
    batch = made(client, close=True, **EVENTS)
    assert batch["status"] == "completed"
    assert names_of(engine) == ["complete", "success"]
    later = made(client, **EVENTS)
    assert client.post(f"/batches/{later['id']}/close").json["status"] == "completed"


def test_a_failed_member_is_told_once_and_success_may_come_later(client, engine):
    batch = made(client, jobs=3, close=True, callback_url="https://example.com/hook", **EVENTS)
    first, second, third = ids_of(batch)
    dead(engine, [first])
    count()
    assert names_of(engine) == ["failure"]
    dead(engine, [second])
    done(engine, [third])
    count()
    assert (shown(client, batch["id"])["status"], names_of(engine)) == ("failed", ["failure", "complete"])
    assert client.post(f"/jobs/{first}/retry").status_code == 200
    assert counts(client, batch["id"]) == (3, 1, 1, 0, 1)
    count()
    assert (shown(client, batch["id"])["status"], shown(client, batch["id"])["finished_at"]) == (
        "closed",
        None,
    )
    again = client.post(f"/batches/{batch['id']}/retry", json={"reason": "mended"}).json
    assert (again["requeued"], again["more"], again["failed"]) == (1, False, 0)
    done(engine, [first, second])
    count()
    over = shown(client, batch["id"])
    assert (over["status"], names_of(engine)) == ("completed", ["failure", "complete", "success"])
    with engine.connect() as connection:
        said = connection.execute(
            text("SELECT payload -> 'json' ->> 'type' FROM jobs WHERE callback_of = :id ORDER BY id"),
            {"id": batch["id"]},
        ).scalars()
        assert list(said) == ["batch.failed", "batch.completed"], "each end is told"


def test_failed_and_completed_within_one_count_is_a_new_end(client, engine):
    batch = made(client, jobs=1, close=True, **EVENTS)
    (job,) = ids_of(batch)
    dead(engine, [job])
    count()
    client.post(f"/jobs/{job}/retry")
    done(engine, [job])
    count()
    assert (shown(client, batch["id"])["status"], names_of(engine)) == (
        "completed",
        ["failure", "complete", "success"],
    )


def test_a_closed_batch_is_not_over_while_an_end_is_not_counted(client, engine):
    """A member that was queued again is not taken for ended, though the counters say so until that is counted."""
    batch = made(client, jobs=1, **EVENTS)
    (job,) = ids_of(batch)
    dead(engine, [job])
    count()
    client.post(f"/jobs/{job}/retry")
    assert client.post(f"/batches/{batch['id']}/close").json["status"] == "closed"
    assert names_of(engine) == ["failure"]


def test_a_member_adds_others_from_inside(client, engine):
    batch = made(client, jobs=1, close=True, **EVENTS)
    (job,) = ids_of(batch)
    asked = {"part": "pages", "jobs": [JOB], "member": {"job_id": job, "attempt": 1}}
    send = partial(client.post, f"/batches/{batch['id']}/jobs")
    waits = send(json=asked)
    assert (waits.status_code, "no member of batch" in waits.json["detail"]) == (409, True)
    begun(engine, job)
    first, again = send(json=asked), send(json=asked)
    assert (first.status_code, first.json) == (200, again.json)
    assert send(json=asked | {"member": {"job_id": job, "attempt": 2}, "part": "p"}).status_code == 409
    other = made(client, jobs=1, close=True)
    assert client.post(f"/batches/{other['id']}/jobs", json=asked).status_code == 409
    assert counts(client, batch["id"]) == (2, 0, 0, 0, 2)
    outside = send(json={"part": "pages", "jobs": [JOB]})
    assert outside.status_code == 409


def test_cancelling_a_batch_cancels_its_members_and_closes_it(client, engine):
    batch = made(client, jobs=3, **EVENTS)
    runs = ids_of(batch)[0]
    begun(engine, runs)
    asked = client.post(f"/batches/{batch['id']}/cancel", json={"reason": "wrong file"})
    assert asked.status_code == 202
    assert [asked.json[name] for name in ("cancel", "members", "asked", "more", "status")] == [
        *("asked", 2, 1, False),
        "closed",
    ]
    inside = {"part": "p", "jobs": [JOB], "member": {"job_id": runs, "attempt": 1}}
    assert client.post(f"/batches/{batch['id']}/jobs", json=inside).status_code == 409
    assert client.get(f"/jobs/{runs}").json["status"] == "processing"
    with engine.begin() as connection:
        connection.execute(
            text(
                "UPDATE jobs SET status='completed', lease_expires_at=NULL, worker_id=NULL, finished_at=now(), ended_by='w' WHERE id = :id"
            ),
            {"id": runs},
        )
    count()
    assert (shown(client, batch["id"])["status"], names_of(engine)) == ("cancelled", ["complete"])
    assert client.post(f"/batches/{batch['id']}/cancel").status_code == 200
    over = made(client, close=True)
    refused = client.post(f"/batches/{over['id']}/cancel")
    assert (refused.status_code, "is completed already" in refused.json["detail"]) == (409, True)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"name": ""}, "name"),
        ({"colour": "red"}, "colour"),
        ({"open_for": 0}, "open_for"),
        ({"on_complete": JOB | {"priority": 10}}, "on_complete.priority"),
        ({"on_success": JOB | {"queue": "nowhere"}}, "on_success.queue"),
        ({"on_failure": {"payload": {"task": "noop", "batch": 1}}}, "on_failure.payload"),
        ({"on_failure": JOB | {"idempotency_key": "k"}}, "on_failure.idempotency_key"),
        ({"on_failure": JOB | {"run_at": "2030-01-01T00:00:00Z"}}, "on_failure.run_at"),
        ({"callback_url": "ftp://x"}, "callback_url"),
        ({"jobs": []}, "jobs"),
        ({"parent": "x"}, "parent"),
    ],
)
def test_a_field_that_breaks_a_rule_is_named_and_nothing_is_made(client, engine, body, field):
    refused = client.post("/batches", json=body)
    assert (refused.status_code, refused.json["errors"][0]["field"]) == (422, field)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM groups")).scalar() == 0


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", ""),
        ("GET", "/events"),
        ("GET", "/jobs"),
        ("GET", "/explain"),
        ("POST", "/close"),
        ("POST", "/cancel"),
        ("POST", "/retry"),
    ],
)
def test_a_batch_that_there_is_not(client, method, path):
    for batch, status in ((NONE, 404), ("x", 404)):
        assert client.open(f"/batches/{batch}{path}", method=method).status_code == status
    assert client.post(f"/batches/{NONE}/jobs", json={"part": "a", "jobs": [JOB]}).status_code == 404


def test_of_many_requests_with_one_part_one_stores(app, client):
    batch = made(client)["id"]
    answers, barrier = [], threading.Barrier(8)

    def send():
        barrier.wait()
        body = {"part": "a", "jobs": [JOB] * 3}
        answers.append(app.test_client().post(f"/batches/{batch}/jobs", json=body))

    threads = [threading.Thread(target=send) for _ in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    taken = [one.json for one in answers if one.status_code == 200]
    assert {one.status_code for one in answers} <= {200, 409, 503}
    assert taken
    assert all(one == taken[0] for one in taken)
    assert counts(client, batch)[0] == 3


def test_batches_are_listed_from_the_newest_on(client):
    ids = [made(client, name=name)["id"] for name in ("a", "b", "a")]
    first = client.get("/batches?limit=2").json
    assert [one["id"] for one in first["items"]] == [ids[2], ids[1]]
    rest = client.get(f"/batches?limit=2&cursor={first['next_cursor']}").json
    assert ([one["id"] for one in rest["items"]], rest["next_cursor"]) == ([ids[0]], None)
    assert [one["id"] for one in client.get("/batches?name=a").json["items"]] == [ids[2], ids[0]]
    client.post(f"/batches/{ids[0]}/close")
    assert [one["id"] for one in client.get("/batches?status=completed").json["items"]] == [ids[0]]
    assert client.get("/batches?status=gone").status_code == 422


def test_members_are_listed(client, engine):
    batch = made(client, jobs=3)
    made(client, jobs=1)
    ids = ids_of(batch)
    done(engine, ids[:1])
    page = client.get(f"/batches/{batch['id']}/jobs?limit=2").json
    assert ([one["id"] for one in page["items"]], page["total"]) == (ids[:0:-1], 3)
    rest = client.get(f"/batches/{batch['id']}/jobs?limit=2&cursor={page['next_cursor']}").json
    assert [one["id"] for one in rest["items"]] == ids[:1]
    some = client.get(f"/batches/{batch['id']}/jobs?status=completed&fields=id").json
    assert some["items"] == [{"id": ids[0]}]


def test_a_closed_batch_says_so_in_one_sentence():
    assert str(BatchClosed(NONE)).endswith("nothing was stored")


def test_a_batch_says_why_it_is_not_over(client, engine):
    batch = made(client, jobs=2, close=True)
    begun(engine, ids_of(batch)[0])
    told = client.get(f"/batches/{batch['id']}/explain").json
    assert (told["state"], told["facts"]["queued"], told["facts"]["processing"]) == ("running", 1, 1)
    done(engine, ids_of(batch)[1:])
    assert client.get(f"/batches/{batch['id']}/explain").json["facts"]["notes"] == 1


def test_a_batch_whose_answer_was_lost_is_answered_by_the_second_try(app, client, monkeypatch):
    """The first commit came through, and its connection broke behind it."""
    real = service.in_transaction

    def twice(engine, work):
        real(engine, work)
        return real(engine, work)

    monkeypatch.setattr(service, "in_transaction", twice)
    assert client.post("/batches", json={"name": "a"}).status_code == 201
    keyed = client.post("/batches", json={"name": "b"}, headers={"Idempotency-Key": "k"})
    assert keyed.status_code == 200
    assert [one["name"] for one in client.get("/batches").json["items"]] == ["b", "a"]
