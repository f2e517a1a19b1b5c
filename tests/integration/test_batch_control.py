"""Batches as a whole: closed late, cancelled and queued again in portions, waited for, deleted; and what happens to them all at once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count as numbers
from uuid import UUID

import pytest
from batched import EVENTS, JOB, added, begun, count, counts, dead, done, ids_of, made, shown, status_of, told
from ending import complete
from sqlalchemy import text
from uuid_utils.compat import uuid7

from tasks.runtime import runtime
from tasks.sweeps.count_ends import count_ends
from tasks.sweeps.prune import run_batch_prune
from webapp.api.batch_answers import BatchState
from webapp.batches import control, control_store, members, store
from webapp.batches.errors import BatchClosed
from webapp.batches.model import Member, PartKey
from webapp.batches.store import NewBatch
from webapp.flow.reach import EVERYTHING
from webapp.flow.tenant import DEFAULT
from webapp.infra.postgres.engine import in_transaction
from webapp.jobs import filters
from webapp.jobs.submission import NewJob

#: Rounds of the race for a batch's end: each is some statements.
ROUNDS = 100


def names_of(engine):
    return [name for name, _ in told(engine)]


def execute(engine, statement, **values):
    with engine.begin() as connection:
        connection.execute(text(statement), values)


def test_one_that_is_open_for_too_long_is_closed_and_says_so(client, engine):
    batch = made(client, jobs=1, open_for=5, **EVENTS)
    empty = made(client, open_for=5)["id"]
    assert runtime().keeper.close_late() == 0
    execute(engine, "UPDATE groups SET deadline = now() - interval '1 s'")
    assert runtime().keeper.close_late() == 2
    late = shown(client, batch["id"])
    assert (late["status"], late["open_until"], late["closed_why"]) == ("closed", None, control.TOO_LONG)
    assert shown(client, empty)["status"] == "completed"
    done(engine, ids_of(batch))
    count()
    assert names_of(engine) == ["complete", "success"]


def test_a_large_batch_is_cancelled_in_portions(client, engine, monkeypatch):
    monkeypatch.setattr(control, "AT_ONCE", 2)
    monkeypatch.setattr(control, "PORTION", 3)
    batch = made(client, jobs=12)["id"]
    first = client.post(f"/batches/{batch}/cancel").json
    assert (first["members"], first["more"], first["cancelled"]) == (2, True, 2)
    assert client.post(f"/batches/{batch}/cancel").json["members"] == 2, "asked again it goes on"
    assert runtime().keeper.go_on_cancelling() == 8
    assert runtime().keeper.go_on_cancelling() == 0
    count()
    assert (shown(client, batch)["status"], counts(client, batch)) == ("cancelled", (12, 0, 0, 12, 0))


def test_what_failed_is_queued_again_in_portions(client, engine, monkeypatch):
    monkeypatch.setattr(control, "LOOKED_AT_ONCE", 2)
    monkeypatch.setattr(control, "LOOKED_AT", 3)
    batch = made(client, jobs=8, close=True, **EVENTS)
    ids = ids_of(batch)
    dead(engine, ids[::2])
    done(engine, ids[1::2])
    count()
    assert (shown(client, batch["id"])["status"], names_of(engine)) == ("failed", ["failure", "complete"])
    first = client.post(f"/batches/{batch['id']}/retry", json={"reason": "mended"}).json
    assert (first["requeued"], first["more"], first["status"], first["finished_at"]) == (
        1,
        True,
        "closed",
        None,
    )
    assert shown(client, batch["id"])["is_retrying"]
    dead(engine, ids[:1])
    count()
    assert shown(client, batch["id"])["status"] == "closed", "others are still to be queued again"
    assert runtime().keeper.go_on_retrying() == 3
    assert not shown(client, batch["id"])["is_retrying"]
    assert counts(client, batch["id"]) == (8, 4, 1, 0, 3)
    letters = client.get("/dlq/letters?state=requeued").json["items"]
    assert len(letters) == 4
    assert runtime().keeper.go_on_retrying() == 0, "what fails later is left as it is"
    assert client.post(f"/batches/{batch['id']}/retry").json["requeued"] == 1
    done(engine, ids[::2])
    count()
    assert names_of(engine) == ["failure", "complete"], "not all members were looked at"
    runtime().keeper.go_on_retrying()
    assert names_of(engine) == ["failure", "complete", "success"]
    nothing = client.post(f"/batches/{batch['id']}/retry").json
    assert (nothing["requeued"], nothing["status"], nothing["more"]) == (0, "completed", True)


def test_the_sweep_does_all_of_it(client, engine):
    late, over = made(client, open_for=5)["id"], made(client, jobs=1, close=True)
    execute(engine, "UPDATE groups SET deadline = now() - interval '1 s'")
    done(engine, ids_of(over))
    count_ends.run()
    assert [shown(client, one)["status"] for one in (late, over["id"])] == ["completed", "completed"]


def test_who_did_what_is_on_record(client):
    batch = made(client, jobs=1)["id"]
    client.post(f"/batches/{batch}/close")
    client.post(f"/batches/{batch}/close")
    client.post(f"/batches/{batch}/cancel", json={"reason": "wrong"})
    client.post(f"/batches/{batch}/retry", json={"reason": "right"})
    acts = client.get(f"/audit?target=batch:{batch}").json["items"]
    assert [(one["event"], one["reason"]) for one in reversed(acts)] == [
        ("batch.close", None),
        ("batch.cancel", "wrong"),
        ("batch.retry", "right"),
    ]


def test_a_batch_goes_long_after_its_end_with_its_parts(client, engine, parts):
    old, young, running = (
        (made(client, close=True)["id"] for _ in range(2)),
        made(client)["id"],
        made(client)["id"],
    )
    first, second = old
    added(client, young, "a")
    gone = UUID(int=filters.first_id(datetime.now(UTC) - timedelta(days=40)).int | uuid7().int & (2**80 - 1))
    execute(engine, "UPDATE groups SET id = :gone WHERE id = :id", gone=gone, id=first)
    execute(engine, "UPDATE batch_parts SET group_id = :gone", gone=gone)
    execute(engine, "UPDATE groups SET finished_at = now() - interval '40 days' WHERE id = :gone", gone=gone)
    assert run_batch_prune(parts, 1.0) == 1
    assert client.get(f"/batches/{gone}").status_code == 410
    assert [client.get(f"/batches/{one}").status_code for one in (second, young, running)] == [200] * 3
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM batch_parts")).scalar() == 0


def test_a_rate_and_an_expected_end_are_said_where_they_are_known(client, engine):
    batch = made(client, jobs=4, close=True)
    ids = ids_of(batch)
    assert (batch["rate"], batch["expected_at"]) == (None, None)
    done(engine, ids[:1])
    count()
    execute(engine, "UPDATE groups SET pace = jsonb_set(pace, '{since}', to_jsonb(now() - interval '10 s'))")
    done(engine, ids[1:3])
    found = shown(client, batch["id"])
    assert 0.2 < found["rate"] <= 0.3
    left = datetime.fromisoformat(found["expected_at"]) - datetime.now(UTC)
    assert timedelta(seconds=1) < left < timedelta(seconds=6)


def test_a_request_waits_for_the_end_of_a_batch(app, client, engine, eventually):
    batch = made(client, jobs=1, close=True)
    watchers = app.extensions["watchers"]
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(lambda: app.test_client().get(f"/batches/{batch['id']}?wait=30"))
        eventually(lambda: watchers.count)
        done(engine, ids_of(batch))
        count()
        assert answer.result(timeout=20).json["status"] == "completed"
    assert client.get(f"/batches/{made(client)['id']}?wait=0.1").json["status"] == "open"
    assert client.get(f"/batches/{batch['id']}?wait=61").status_code == 422


def test_a_batch_is_followed_to_its_end(client, engine):
    batch = made(client, jobs=2, close=True)
    first, second = ids_of(batch)
    path = f"/batches/{batch['id']}/events"
    with client.get(path, buffered=False) as stream:
        lines = (part.decode() for part in stream.response)
        events = (one for one in lines if one.startswith("event:"))
        assert '"open": 2' in next(events)
        done(engine, [first])
        count()
        assert '"open": 1' in next(events)
        done(engine, [second])
        count()
        final = next(one for one in events if one.startswith("event: final"))
        known = final.split("id: ")[1].split("\n")[0]
        assert next(events, None) is None
    again = client.get(path, headers={"Last-Event-ID": known})
    assert again.status_code == 204


def test_counts_are_exact_while_members_end_and_are_counted(client, engine):
    """Two sessions end members, one counts, and every look agrees with the table in one snapshot."""
    batch = made(client, jobs=120, close=True, **EVENTS)
    ids, over = ids_of(batch), threading.Event()

    def counting():
        while not over.is_set():
            count()

    def looks():
        with engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
            return connection.execute(
                text("""
                SELECT (SELECT count(*) FROM jobs WHERE group_id = :id AND status = 'completed'),
                       (SELECT completed + (SELECT count(*) FROM group_ends WHERE group_id = :id AND became = 'completed')
                          FROM groups WHERE id = :id)"""),
                {"id": batch["id"]},
            ).one()

    with ThreadPoolExecutor(3) as pool:
        counter = pool.submit(counting)
        ends = [pool.submit(done, engine, ids[start::2]) for start in range(2)]
        samples = 0
        while not all(one.done() for one in ends):
            table, told_of = looks()
            assert table == told_of
            samples += 1
        over.set()
        counter.result()
        [one.result() for one in ends]
    count()
    assert samples > 5
    assert (shown(client, batch["id"])["status"], names_of(engine)) == ("completed", ["complete", "success"])


def test_of_a_close_a_last_end_and_an_add_from_inside_at_once_the_end_is_found_once(app, client, engine):
    """Whichever comes last: the batch is over once, and never before a member that was added."""
    send, totals = partial(app.test_client().post), []
    for number in range(ROUNDS):
        batch = made(client, jobs=1, name=str(number), **EVENTS)
        (job,) = ids_of(batch)
        claim, barrier = begun(engine, job), threading.Barrier(4)

        def close(batch=batch, barrier=barrier):
            barrier.wait()
            return client.application.test_client().post(f"/batches/{batch['id']}/close").status_code

        def end(claim=claim, barrier=barrier):
            barrier.wait()
            return in_transaction(engine, lambda connection: complete(connection, claim, None))

        def add(batch=batch, job=job, barrier=barrier):
            barrier.wait()
            inside = {"part": "p", "jobs": [JOB], "member": {"job_id": job, "attempt": 1}}
            return send(f"/batches/{batch['id']}/jobs", json=inside)

        def counting(barrier=barrier):
            barrier.wait()
            return count()

        with ThreadPoolExecutor(4) as pool:
            work = [pool.submit(one) for one in (close, end, add, counting)]
            closed, _, answer, _ = (one.result() for one in work)
        assert closed in {200, 503}, closed
        client.post(f"/batches/{batch['id']}/close")
        count()
        found = shown(client, batch["id"])
        assert answer.status_code in {200, 409, 503}, answer.text
        if answer.status_code == 200:
            assert (found["total"], found["status"]) == (2, "closed")
            done(engine, [answer.json["items"][0]["id"]])
            count()
            found = shown(client, batch["id"])
        assert (found["status"], found["open"]) == ("completed", 0)
        totals.append(found["total"])
    said = told(engine)
    assert sorted((about["name"], name) for name, about in said) == sorted(
        (str(number), name) for number in range(ROUNDS) for name in ("complete", "success")
    )
    assert all(about["totals"]["completed"] == totals[int(about["name"])] for _, about in said)


def test_another_room_fills_a_batch_in_its_own_transaction(client, engine):
    """What a step of a workflow does: the parent counts its members itself."""
    parent, child, serial = uuid7(), uuid7(), numbers()
    execute(
        engine,
        "INSERT INTO groups (id, kind, status, total) VALUES (:id, 'workflow', 'running', 1)",
        id=parent,
    )

    def jobs(many):
        return [
            NewJob(uuid7(), "noop", f'{{"n": {next(serial)}}}', "default", 3, 60.0, None, b"")
            for _ in range(many)
        ]

    def fill(connection, part):
        return members.add_members(connection, child, jobs(2), part=PartKey(part), fingerprint=b"f")

    with engine.begin() as connection:
        assert members.make_child(
            connection, NewBatch(child, "map", DEFAULT, None, {}, None, 60.0, parent=parent)
        )
        assert len(fill(connection, "0").created) == 2
    with engine.begin() as connection:
        assert fill(connection, "0") is None, "it was added before"
        assert len(fill(connection, "1").created) == 2
        store.close(connection, child)
        runtime().keeper.judged(connection, [child])
    with engine.connect() as connection, pytest.raises(BatchClosed):
        fill(connection, "2")
    assert counts(client, child) == (4, 0, 0, 0, 4)
    done(engine, [one["id"] for one in client.get(f"/batches/{child}/jobs").json["items"]])
    count()
    with engine.connect() as connection:
        noted = connection.execute(text("SELECT group_id, member_id, became FROM group_ends")).one()
        assert tuple(noted) == (parent, child, "completed")
        assert (
            connection.execute(text("SELECT total FROM groups WHERE id = :id"), {"id": parent}).scalar() == 1
        )


def test_a_member_cannot_end_while_it_adds(client, engine):
    batch = made(client, jobs=1, close=True)
    (job,) = ids_of(batch)
    claim = begun(engine, job)
    with engine.begin() as connection, engine.begin() as other:
        assert store.hold_member(connection, UUID(batch["id"]), Member(claim.id, claim.attempt))
        other.execute(text("SET LOCAL lock_timeout = 50"))
        with pytest.raises(Exception, match="lock timeout"):
            complete(other, claim, None)
        other.rollback()
    assert status_of(engine, job) == "processing"


def test_two_sweeps_do_not_queue_the_same_members_again(client, engine):
    batch = made(client, jobs=2, close=True)
    dead(engine, ids_of(batch))
    with engine.begin() as connection:
        control_store.ask_retry(connection, UUID(batch["id"]))
    with engine.begin() as first, engine.begin() as second:
        assert control_store.retry_members(first, UUID(batch["id"]), 10).requeued == 2
        assert control_store.retry_members(second, UUID(batch["id"]), 10) == (0, False, False)


def test_a_member_of_a_batch_that_was_over_adds_before_its_return_is_counted(client, engine):
    batch = made(client, jobs=1, close=True, callback_url="https://example.com/hook", **EVENTS)
    (job,) = ids_of(batch)
    dead(engine, [job])
    count()
    assert shown(client, batch["id"])["status"] == "failed"
    client.post(f"/jobs/{job}/retry")
    claim = begun(engine, job)
    inside = {"part": "p", "jobs": [JOB], "member": {"job_id": job, "attempt": claim.attempt}}
    answer = client.post(f"/batches/{batch['id']}/jobs", json=inside)
    assert (answer.status_code, shown(client, batch["id"])["status"]) == (200, "closed")
    count()
    in_transaction(engine, lambda connection: complete(connection, claim, None))
    done(engine, ids_of(answer.json))
    count()
    assert (shown(client, batch["id"])["status"], names_of(engine)) == (
        "completed",
        ["failure", "complete", "success"],
    )


def test_a_member_of_a_cancelled_batch_that_is_queued_again_is_not_cancelled_again(client, engine):
    batch = made(client, jobs=2)
    ids = ids_of(batch)
    assert client.post(f"/batches/{batch['id']}/cancel").json["cancelled"] == 2
    count()
    assert shown(client, batch["id"])["status"] == "cancelled"
    client.post(f"/jobs/{ids[0]}/retry")
    count()
    found = shown(client, batch["id"])
    assert (found["status"], found["cancel_requested_at"]) == ("closed", None)
    assert runtime().keeper.go_on_cancelling() == 0
    done(engine, ids[:1])
    count()
    assert (shown(client, batch["id"])["status"], counts(client, batch["id"])) == (
        "cancelled",
        (2, 1, 0, 1, 0),
    )


def test_who_may_not_see_content_sees_no_payload_of_what_tells_and_no_address(client):
    batch = made(client, **EVENTS, callback_url="http://93.184.216.34/told")
    row = client.application.extensions["batches"].get(UUID(batch["id"]), EVERYTHING)
    whole, bare = (BatchState.of_one(row, with_content=seen) for seen in (True, False))
    assert (whole["callback_url"], bare["callback_url"]) == ("http://93.184.216.34/told", None)
    assert whole["on_failure"]["payload"] == EVENTS["on_failure"]["payload"]
    assert (bare["on_failure"]["payload"], bare["on_failure"]["task"]) == (None, "noop")


def test_a_portion_that_takes_too_long_leaves_the_rest_to_the_next_run(client, engine, monkeypatch):
    monkeypatch.setattr(control, "AT_ONCE", 1)
    monkeypatch.setattr(control, "PORTION", 1)
    batch = made(client, jobs=4)["id"]
    assert client.post(f"/batches/{batch}/cancel").status_code == 202
    keeper = runtime().keeper
    with monkeypatch.context() as patched:
        patched.setattr(keeper, "_clock", numbers(step=1_000).__next__)
        assert keeper.go_on_cancelling() == 1
    assert keeper.go_on_cancelling() >= 1
    assert shown(client, batch)["cancelled"] == 4
