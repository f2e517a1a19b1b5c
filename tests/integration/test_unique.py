"""Unique jobs: while one with a key counts, a submission with it makes no other."""

from __future__ import annotations

import json
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from uuid import UUID

import psycopg2
import pytest
from ending import complete as settle
from ending import end_again, end_last
from factories import ERROR, LEASE, WORKER, row_of, tables
from sqlalchemy import make_url, text
from sqlalchemy.exc import OperationalError
from uuid_utils.compat import uuid7

from tasks.sweeps import prune
from webapp.dead_letters.store import move_to_dead_letters
from webapp.flow.reach import EVERYTHING
from webapp.jobs import insert, store, unique_keys
from webapp.jobs.errors import UniqueHeld, UniqueOfPruned, UniqueRace
from webapp.jobs.options import Options
from webapp.jobs.states import AttemptOutcome
from webapp.jobs.submission import Origin, Submission
from webapp.jobs.unique import OnConflict, Unique

HELD = "DJPS-Unique-Held"


def body(key="refresh-17", *, more=None, **unique):
    return {"payload": {"task": "noop"}, "unique": {"key": key, **unique}} | (more or {})


def post(client, *given, **asked):
    return client.post("/jobs", json=body(*given, **asked))


def asked_of(service, *given, **unique):
    return service.submit(
        Submission({"task": "noop"}, options=Options(unique=Unique(*given, **unique))), EVERYTHING
    )


def keys_of(engine):
    with engine.connect() as connection:
        return {row[0]: row[1] for row in connection.execute(text("SELECT key, job_id FROM unique_keys"))}


def complete(connection, claimed):
    return settle(connection, claimed, None)


def claim(engine, job_id):
    with engine.begin() as connection:
        (claimed,) = store.claim(connection, [UUID(str(job_id))], worker_id=WORKER, lease=LEASE)
    return claimed


def run_out(engine):
    with engine.begin() as connection:
        connection.execute(text("UPDATE unique_keys SET until = until - interval '1 year'"))


def test_a_second_one_is_answered_with_the_job_that_holds_the_key(client, engine):
    first = post(client)
    assert (first.status_code, HELD in first.headers) == (201, False)
    again = client.post("/jobs", json=body() | {"payload": {"task": "noop", "other": 1}})
    assert (again.status_code, again.json, again.headers[HELD]) == (200, first.json, "true")
    assert "Idempotency-Replayed" not in again.headers
    assert post(client, "refresh-18").status_code == 201
    assert len(tables(engine)) == 2


def test_a_refusal_names_the_key_and_the_job(client, engine):
    first = post(client).json
    answer = post(client, on_conflict="refuse")
    assert (answer.status_code, answer.mimetype) == (409, "application/problem+json")
    assert answer.json["detail"] == f"unique.key 'refresh-17' is held by job {first['id']}"
    assert "Retry-After" not in answer.headers
    assert len(tables(engine)) == 1


@pytest.mark.parametrize("on_conflict", [OnConflict.RETURN, OnConflict.REFUSE])
def test_a_hundred_requests_at_once_make_one_job(service, engine, on_conflict):
    def submit(_):
        try:
            return asked_of(service, "k", on_conflict=on_conflict)
        except UniqueHeld as held:
            return held

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(submit, range(100)))
    (row,) = tables(engine)
    kinds = Counter(getattr(answer, "created", "refused") for answer in answers)
    assert kinds == {True: 1, (False if on_conflict is OnConflict.RETURN else "refused"): 99}
    assert {getattr(answer, "job", None) and answer.job.id for answer in answers} <= {row["id"], None}
    assert keys_of(engine) == {"k": row["id"]}


def test_a_hundred_posts_at_once_make_one_job_also_where_the_holder_has_just_ended(app, engine, answered):
    def submit(_):
        with app.test_client() as client:
            return answered(lambda: post(client)).status_code

    for _ in range(3):
        with ThreadPoolExecutor(16) as pool:
            assert Counter(pool.map(submit, range(100))) == {201: 1, 200: 99}
        (held,) = keys_of(engine).values()
        with engine.begin() as connection:
            (claimed,) = store.claim(connection, [held], worker_id=WORKER, lease=LEASE)
            assert complete(connection, claimed)
    assert len(tables(engine)) == 3


def test_one_that_waited_for_the_key_sees_who_took_it(service, engine, eventually):
    """The job that holds the key is committed while the other one waits: its statement's own snapshot does not have it."""
    ended = asked_of(service, "k").job
    with engine.begin() as connection:
        (claimed,) = store.claim(connection, [ended.id], worker_id=WORKER, lease=LEASE)
        assert complete(connection, claimed)
    connection = engine.connect()
    job = service._rules.complete(
        Submission({"task": "noop"}, options=Options(unique=Unique("k"))),
        uuid7(),
        Origin(None, None, EVERYTHING, None),
        datetime.now(UTC),
    )
    with connection.begin():
        row, _ = unique_keys.insert_unique(
            connection, job, job.unique, EVERYTHING, dispatched=False, key_ttl=60.0, again=False
        )
        assert row is not None
        with ThreadPoolExecutor(1) as pool:
            other = pool.submit(asked_of, service, "k")
            eventually(lambda: _waits(engine))
            connection.commit()
            assert (other.result().job.id, other.result().created) == (job.id, False)
    connection.close()


def _waits(engine):
    with engine.connect() as connection:
        return connection.execute(
            text(
                "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%unique_keys%'"
            )
        ).scalar_one()


@pytest.mark.parametrize(
    ("states", "free_once"),
    [("queued", "claimed"), ("unfinished", "completed"), (None, "completed")],
)
def test_a_holder_counts_while_it_is_in_the_states_that_are_asked(client, engine, states, free_once):
    first = post(client).json
    assert post(client, **{"while": states}).status_code == 200
    claimed = claim(engine, first["id"])
    if free_once == "completed":
        assert post(client, **{"while": states}).json["id"] == first["id"]
        with engine.begin() as connection:
            assert complete(connection, claimed)
    assert post(client, **{"while": states}).status_code == 201
    assert len(tables(engine)) >= 2


def test_a_holder_with_a_time_counts_for_it_whatever_becomes_of_it(client, engine):
    first = post(client, **{"for": 60}).json
    with engine.begin() as connection:
        (claimed,) = store.claim(connection, [UUID(first["id"])], worker_id=WORKER, lease=LEASE)
        assert complete(connection, claimed)
    for more in ({"for": 60}, {}, {"while": "queued"}):
        answer = post(client, **more)
        assert (answer.status_code, answer.json["id"], answer.json["status"]) == (
            200,
            first["id"],
            "completed",
        )
    run_out(engine)
    assert post(client, **{"for": 60}).status_code == 201


def test_with_a_time_alone_a_job_whose_time_is_over_is_not_in_the_way(client, engine):
    first = post(client, **{"for": 60}).json
    run_out(engine)
    second = post(client, **{"for": 60})
    assert second.status_code == 201
    assert row_of(engine, first["id"]).status == "queued"


def test_a_retry_of_one_that_has_a_second_beside_it_is_stuck_nowhere(client, engine):
    """`queued` counts until the start; what comes back to the queue is no second one that waits."""
    first = post(client, **{"while": "queued"}).json
    failed = claim(engine, first["id"])
    second = post(client, **{"while": "queued"})
    assert second.status_code == 201
    with engine.begin() as connection:
        assert end_again(connection, failed, AttemptOutcome.FAILED, ERROR, delay=0.0)
    assert row_of(engine, first["id"]).status == "queued"
    assert post(client, **{"while": "queued"}).json["id"] == second.json["id"]
    for job_id, attempt in ((first["id"], 2), (second.json["id"], 1)):
        again = claim(engine, job_id)
        assert again.attempt == attempt
        with engine.begin() as connection:
            assert complete(connection, again)
    assert post(client).status_code == 201


def test_a_job_that_waits_for_its_retry_is_unfinished_and_one_that_died_is_not(client, engine):
    first = post(client).json
    failed = claim(engine, first["id"])
    with engine.begin() as connection:
        assert end_again(connection, failed, AttemptOutcome.FAILED, ERROR, delay=0.0)
    assert post(client).json["id"] == first["id"]
    failed = claim(engine, first["id"])
    with engine.begin() as connection:
        assert end_last(connection, failed, AttemptOutcome.FAILED, ERROR)
        assert move_to_dead_letters(connection, failed.id, failed.attempt)
    second = post(client)
    assert second.status_code == 201
    # An operator's wish is not a submission: both wait.
    assert client.post(f"/jobs/{first['id']}/retry").status_code == 200
    assert post(client).json["id"] == second.json["id"]


def test_a_cancelled_holder_counts_no_more(client):
    first = post(client, more={"delay": 3600}).json
    assert post(client).json["id"] == first["id"]
    client.post(f"/jobs/{first['id']}/cancel")
    assert post(client).status_code == 201


def test_a_holder_that_was_deleted_for_its_age_is_a_410(client, service, engine):
    first = post(client, **{"for": 60}).json
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM jobs"))
    answer = post(client)
    assert answer.status_code == 410
    assert first["id"] in answer.json["detail"]
    with pytest.raises(UniqueOfPruned):
        asked_of(service, "refresh-17")


def test_an_idempotency_key_answers_before_the_unique_key_is_judged(client, engine):
    mine = body(more={"idempotency_key": "i"})
    first = client.post("/jobs", json=mine).json
    with engine.begin() as connection:
        (claimed,) = store.claim(connection, [UUID(first["id"])], worker_id=WORKER, lease=LEASE)
        assert complete(connection, claimed)
    second = post(client).json
    again = client.post("/jobs", json=mine)
    assert (again.status_code, again.json["id"]) == (200, first["id"])
    assert again.headers["Idempotency-Replayed"] == "true"
    assert HELD not in again.headers
    assert client.post("/jobs", json=mine | {"priority": 1}).status_code == 422
    assert keys_of(engine) == {"refresh-17": UUID(second["id"])}


def test_a_submission_that_made_no_job_has_not_used_its_idempotency_key(client, engine):
    holder = post(client).json
    other = client.post("/jobs", json=body(more={"idempotency_key": "i"}))
    assert (other.status_code, other.headers[HELD]) == (200, "true")
    client.post(f"/jobs/{holder['id']}/cancel")
    assert client.post("/jobs", json=body(more={"idempotency_key": "i"})).status_code == 201


def test_requests_at_once_with_both_keys_make_one_job(app, engine, answered):
    def submit(number):
        given = body(more={"idempotency_key": f"i-{number % 3}"})
        with app.test_client() as client:
            return answered(lambda: client.post("/jobs", json=given)).status_code

    with ThreadPoolExecutor(16) as pool:
        assert Counter(pool.map(submit, range(60))) == {201: 1, 200: 59}
    assert len(tables(engine)) == 1


def test_in_a_batch_each_is_judged_and_of_two_with_one_key_the_first_is_stored(client, engine):
    holder = post(client, "taken").json
    answer = client.post(
        "/jobs/batch",
        json={
            "jobs": [
                body("taken"),
                body("taken", on_conflict="refuse"),
                body("new"),
                body("new"),
                body("new", on_conflict="refuse"),
                {"payload": {"task": "noop"}},
                body("", more={}),
            ]
        },
    ).json
    assert (answer["created"], answer["existing"], answer["invalid"]) == (2, 2, 3)
    items = answer["items"]
    assert items[0] == {"outcome": "existing", "id": holder["id"], "held": True}
    assert items[2]["outcome"] == "created"
    assert items[3] == {"outcome": "existing", "id": items[2]["id"], "held": True}
    for item, job_id in ((items[1], holder["id"]), (items[4], items[2]["id"])):
        assert item["outcome"] == "invalid"
        assert item["errors"][0]["field"] == "unique.key"
        assert job_id in item["errors"][0]["rule"]
    assert items[6]["errors"][0]["field"] == "unique.key"
    assert post(client, "new").json["id"] == items[2]["id"]
    assert len(tables(engine)) == 3


@pytest.mark.parametrize("statement", [insert.STATEMENT_CHARACTERS, 1])
def test_a_batch_with_both_keys(client, engine, monkeypatch, statement):
    monkeypatch.setattr(insert, "STATEMENT_CHARACTERS", statement)
    first = client.post("/jobs", json=body("a", more={"idempotency_key": "i"})).json
    items = client.post(
        "/jobs/batch",
        json={
            "jobs": [
                body("a", more={"idempotency_key": "i"}),
                body("b", more={"idempotency_key": "j"}),
                body("b", more={"idempotency_key": "j"}),
                body("b", more={"idempotency_key": "k"}),
                body("c", more={"idempotency_key": "i"}),
            ]
        },
    ).json["items"]
    assert items[0] == {"outcome": "existing", "id": first["id"]}
    assert items[2] == {"outcome": "existing", "id": items[1]["id"]}
    assert items[3] == {"outcome": "existing", "id": items[1]["id"], "held": True}
    assert items[4]["errors"][0]["field"] == "idempotency_key"
    assert len(tables(engine)) == 2


def test_a_batch_that_makes_nothing_is_answered(client, engine):
    holder = post(client).json
    answer = client.post("/jobs/batch", json={"jobs": [body(), body()]}).json
    assert [item["id"] for item in answer["items"]] == [holder["id"]] * 2
    assert len(tables(engine)) == 1


def test_batches_at_once_with_the_same_keys_in_any_order_make_each_job_once(app, engine, answered):
    names = [f"k-{number}" for number in range(30)]

    def submit(number):
        given = {"jobs": [body(name) for name in (names if number % 2 else names[::-1])]}
        with app.test_client() as client:
            return answered(lambda: client.post("/jobs/batch", json=given))

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(submit, range(16)))
    assert {answer.status_code for answer in answers} == {200}
    assert sum(answer.json["created"] for answer in answers) == 30
    assert set(keys_of(engine)) == set(names)
    assert len(tables(engine)) == 30


def test_a_key_that_another_session_holds_for_too_long_is_a_409_to_be_sent_again(
    settings, client, service, engine
):
    first = post(client).json
    url = make_url(settings.database_url).set(drivername="postgresql").render_as_string(hide_password=False)
    other = psycopg2.connect(url)
    try:
        other.cursor().execute("SELECT FROM unique_keys FOR UPDATE")
        # A holder that counts is seen without the lock.
        assert post(client).json == first
        client.post(f"/jobs/{first['id']}/cancel")
        answer = post(client)
        assert (answer.status_code, answer.headers["Retry-After"]) == (409, "1")
        assert "'refresh-17' is under way" in answer.json["detail"]
        batch = client.post("/jobs/batch", json={"jobs": [body()]})
        assert (batch.status_code, batch.headers["Retry-After"]) == (409, "1")
        with pytest.raises(UniqueRace):
            asked_of(service, "refresh-17")
    finally:
        other.close()
    assert len(tables(engine)) == 1


@pytest.mark.parametrize("seconds", [None, 60.0])
@pytest.mark.parametrize("ends", [False, True])
def test_a_commit_whose_answer_was_lost_is_found_again(service, engine, monkeypatch, ends, seconds):
    """The second try finds what the first has stored, and be it that its job has ended."""
    insert_unique = unique_keys.insert_unique
    tried = threading.Event()

    def lost(connection, *given, **how):
        stored = insert_unique(connection, *given, **how)
        if not tried.is_set():
            tried.set()
            connection.commit()
            if ends:
                with engine.begin() as other:
                    (claimed,) = store.claim(other, [stored[0].id], worker_id=WORKER, lease=LEASE)
                    assert complete(other, claimed)
            raise OperationalError(
                "COMMIT", {}, psycopg2.OperationalError("gone"), connection_invalidated=True
            )
        return stored

    monkeypatch.setattr(unique_keys, "insert_unique", lost)
    accepted = asked_of(service, "k", seconds=seconds)
    assert accepted.created
    assert [row["id"] for row in tables(engine) if "payload" in row] == [accepted.job.id]
    assert accepted.job.status == ("completed" if ends else "queued")


def test_keys_that_count_no_more_are_pruned(client, engine, parts):
    held = [post(client, f"waits-{number}").json for number in range(5)]
    lasting = post(client, "lasts", **{"for": 60}).json
    for name in ("ended", "ended-too"):
        client.post(f"/jobs/{post(client, name).json['id']}/cancel")
    client.post(f"/jobs/{lasting['id']}/cancel")
    claim(engine, held[0]["id"])
    assert prune.run_unique_prune(parts, 5.0, batch=2) == 2
    assert set(keys_of(engine)) == {f"waits-{number}" for number in range(5)} | {"lasts"}
    run_out(engine)
    assert prune.run_unique_prune(parts, 5.0) == 1
    assert "lasts" not in keys_of(engine)
    assert prune.run_unique_prune(parts, 5.0) == 0
    assert post(client, "ended").status_code == 201


def test_pruning_leaves_alone_a_key_that_is_taken_at_that_moment(client, service, engine, parts):
    client.post(f"/jobs/{post(client).json['id']}/cancel")
    with engine.begin() as connection:
        connection.execute(text("SELECT FROM unique_keys FOR UPDATE"))
        assert prune.run_unique_prune(parts, 5.0) == 0
    assert len(keys_of(engine)) == 1


@pytest.mark.parametrize(
    ("unique", "field"),
    [
        ({}, "unique.key"),
        ({"key": ""}, "unique.key"),
        ({"key": "x" * 201}, "unique.key"),
        ({"key": "a\x00"}, "unique.key"),
        ({"key": 17}, "unique.key"),
        ({"key": "k", "while": "running"}, "unique.while"),
        ({"key": "k", "for": 0}, "unique.for"),
        ({"key": "k", "for": 30 * 86_400 + 1}, "unique.for"),
        ({"key": "k", "for": "60"}, "unique.for"),
        ({"key": "k", "on_conflict": "merge"}, "unique.on_conflict"),
        ({"key": "k", "until": 1}, "unique.until"),
        ({"key": "k", "states": "queued"}, "unique.states"),
        ("refresh-17", "unique"),
    ],
)
def test_what_breaks_a_rule_is_refused_by_name(client, engine, unique, field):
    answer = client.post("/jobs", json={"payload": {"task": "noop"}, "unique": unique})
    assert answer.status_code == 422
    assert [one["field"] for one in answer.json["errors"]] == [field]
    assert tables(engine) == []


def test_null_stands_for_what_was_not_asked(client):
    nothing = {"while": None, "for": None, "on_conflict": None}
    first = post(client, **nothing)
    assert (first.status_code, post(client, **nothing).json["id"]) == (201, first.json["id"])
    assert client.post("/jobs", json={"payload": {"task": "noop"}, "unique": None}).status_code == 201


def test_the_command_line_makes_a_job_once(flask, engine):
    submit = partial(flask, "jobs", "submit", '{"task": "noop"}')
    (first,) = submit("--unique", "k", "--unique-while", "queued").stdout.split()
    again = submit("--unique", "k", "--unique-for", 60, "--unique-while", "queued")
    assert again.stdout.strip() == f"{first} (was there before)"
    alone = submit("--unique-for", 60)
    assert (alone.exit_code, "unique.key: is required" in alone.output) == (2, True)
    assert [row["id"] for row in tables(engine)] == [UUID(first)]


def test_a_job_by_itself_shows_the_key_that_it_holds_and_a_list_does_not(client, flask, engine):
    first = post(client, **{"while": "queued"}).json
    assert first["unique_key"] == "refresh-17"
    assert client.get(f"/jobs/{first['id']}").json == first
    assert json.loads(flask("jobs", "show", first["id"], "--json").stdout)["unique_key"] == "refresh-17"
    plain = client.post("/jobs", json={"payload": {"task": "noop"}}).json
    assert plain["unique_key"] is client.get(f"/jobs/{plain['id']}").json["unique_key"] is None
    listed = client.get("/jobs").json["items"]
    assert [set(first) - set(one) for one in listed] == [{"unique_key"}] * 2
    assert client.get("/jobs?fields=id,unique_key").status_code == 422
    # One that has begun holds it until another takes it, and then no more.
    claimed = claim(engine, first["id"])
    assert client.get(f"/jobs/{first['id']}").json["unique_key"] == "refresh-17"
    second = post(client, **{"while": "queued"}).json
    with engine.begin() as connection:
        assert complete(connection, claimed)
    shown = [client.get(f"/jobs/{one['id']}").json["unique_key"] for one in (first, second)]
    assert shown == [None, "refresh-17"]


def test_jobs_without_a_unique_key_do_not_touch_the_table(client, settings):
    url = make_url(settings.database_url).set(drivername="postgresql").render_as_string(hide_password=False)
    other = psycopg2.connect(url)
    try:
        other.cursor().execute("LOCK TABLE unique_keys IN ACCESS EXCLUSIVE MODE")
        plain = {"payload": {"task": "noop"}}
        assert client.post("/jobs", json=plain | {"idempotency_key": "i"}).status_code == 201
        assert client.post("/jobs/batch", json={"jobs": [plain, plain]}).json["created"] == 2
        assert len(client.get("/jobs").json["items"]) == 3
    finally:
        other.close()
