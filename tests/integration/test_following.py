"""Cancel, retry and attempts over HTTP, and what a worker does when a job it runs should stop."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from uuid import UUID, uuid4

import pytest
from clock import SettableClock
from ending import complete, end_again, end_cancelled
from factories import (
    ENDS,
    ERROR,
    LEASE,
    WORKER,
    age,
    attempts_of,
    claimed,
    completed,
    dead_lettered,
    letters_of,
    queued,
    row_of,
    tables,
)
from sqlalchemy import create_engine, event, func, select, text
from uuid_utils.compat import uuid7

from tasks.attempt import cancellation
from tasks.attempt.cancellation import CancelWatch
from tasks.execution import execute_job
from tasks.presence import lost_jobs
from tasks.sweeps.prune import run_prune
from webapp.infra.jsontext import iso
from webapp.infra.postgres.engine import in_transaction
from webapp.infra.telemetry import metrics
from webapp.jobs import Cancelled, Discard, Snooze, filters, store
from webapp.jobs.control import ask_cancel, requeue
from webapp.jobs.options import Terms
from webapp.jobs.states import AttemptOutcome

#: How often each race is run.
RACES = 200


def post(client, job_id, what, **body):
    return client.post(f"/jobs/{job_id}/{what}", **({"json": body} if body else {}))


def run(job_id):
    try:
        execute_job.run(str(job_id))
    except ENDS:
        return


def ask(engine, job_id):
    with engine.begin() as connection:
        ask_cancel(connection, job_id)


def id_of(ago):
    """An id that was made so long ago."""
    return UUID(int=filters.first_id(datetime.now(UTC) - ago).int | uuid7().int & (2**80 - 1))


def make_gone(engine, parts, **changes):
    """The id of a job that was pruned."""
    claim = completed(engine, id=id_of(timedelta(days=40)), **changes)
    age(engine, "finished_at", 40 * 86_400, claim.id)
    assert run_prune(parts, 1.0) == 1
    return claim.id


def test_a_waiting_job_is_cancelled_and_the_answer_says_why(client, engine):
    job = queued(engine)
    answer = post(client, job.id, "cancel", reason="ordered twice")
    assert answer.status_code == 200
    assert (answer.json["status"], answer.json["cancel"]) == ("cancelled", "cancelled")
    assert answer.json["cancel_reason"] == "ordered twice"
    before = tables(engine)
    again = post(client, job.id, "cancel")
    assert (again.status_code, again.json["cancel"], again.json["cancel_reason"]) == (
        200,
        "cancelled",
        "ordered twice",
    )
    assert tables(engine) == before


def test_a_job_that_waits_for_its_retry_is_cancelled_at_once(client, engine):
    claim = claimed(engine)
    with engine.begin() as connection:
        assert end_again(connection, claim, AttemptOutcome.FAILED, ERROR, delay=30)
    assert post(client, claim.id, "cancel").json["cancel_reason"] == "requested"
    assert row_of(engine, claim.id).status == "cancelled"


def test_a_running_job_is_asked_and_goes_on_until_it_stops(client, engine):
    claim = claimed(engine)
    answer = post(client, claim.id, "cancel", reason="first")
    assert (answer.status_code, answer.json["cancel"], answer.json["status"]) == (202, "asked", "processing")
    assert answer.json["cancel_reason"] is None
    assert post(client, claim.id, "cancel", reason="second").status_code == 202
    with engine.begin() as connection:
        assert end_cancelled(connection, claim)
    assert client.get(f"/jobs/{claim.id}").json["cancel_reason"] == "first"


def test_a_job_that_completes_in_spite_of_being_asked_is_completed(client, engine):
    claim = claimed(engine)
    post(client, claim.id, "cancel")
    with engine.begin() as connection:
        assert complete(connection, claim, "1")
    shown = client.get(f"/jobs/{claim.id}").json
    assert (shown["status"], shown["result"], shown["cancel_reason"]) == ("completed", 1, None)


@pytest.mark.parametrize("make", [completed, dead_lettered])
def test_a_job_that_ended_otherwise_cannot_be_cancelled(client, engine, make):
    claim = make(engine)
    before = tables(engine)
    answer = post(client, claim.id, "cancel")
    assert answer.status_code == 409
    assert row_of(engine, claim.id).status in answer.get_json(force=True)["detail"]
    assert tables(engine) == before


@pytest.mark.parametrize(
    ("body", "field"), [({"reason": ""}, "reason"), ({"reason": "x" * 501}, "reason"), ({"why": "x"}, "why")]
)
def test_a_reason_is_some_words(client, engine, body, field):
    job = queued(engine)
    answer = client.post(f"/jobs/{job.id}/cancel", json=body)
    assert answer.status_code == 422
    assert answer.get_json(force=True)["errors"][0]["field"] == field
    assert row_of(engine, job.id).status == "queued"


@pytest.mark.parametrize("make", [dead_lettered, queued])
def test_a_final_job_is_queued_again_with_a_fresh_budget(client, engine, make):
    job = make(engine)
    if row_of(engine, job.id).status == "queued":
        assert post(client, job.id, "retry").status_code == 409
        ask(engine, job.id)
    answer = post(client, job.id, "retry")
    assert answer.status_code == 200
    assert (answer.json["status"], answer.json["retry_count"], answer.json["cancel_reason"]) == (
        "queued",
        0,
        None,
    )
    assert all(letter["requeued_at"] is not None for letter in letters_of(engine, job.id))
    assert post(client, job.id, "retry").status_code == 409


def test_a_completed_job_is_not_run_again(client, engine):
    claim = completed(engine)
    answer = post(client, claim.id, "retry")
    assert answer.status_code == 409
    assert "completed" in answer.get_json(force=True)["detail"]


def test_attempts_are_shown_from_the_newest_on_with_the_one_that_runs(client, engine):
    claim = claimed(engine)
    with engine.begin() as connection:
        end_again(connection, claim, AttemptOutcome.FAILED, ERROR, delay=0)
    with engine.begin() as connection:
        store.claim(connection, [claim.id], worker_id=WORKER, lease=LEASE)
    page = client.get(f"/jobs/{claim.id}/attempts").json
    running, failed = page["items"]
    assert page["next_before"] is None
    assert (running["attempt"], running["outcome"], running["ended_at"], running["duration"]) == (
        2,
        None,
        None,
        None,
    )
    assert (failed["attempt"], failed["outcome"], failed["error_type"]) == (1, "failed", ERROR.type)
    assert (failed["error_message"], failed["traceback"]) == (ERROR.message, ERROR.traceback)
    assert failed["duration"] >= 0
    assert failed["worker_id"] == WORKER
    first = client.get(f"/jobs/{claim.id}/attempts?limit=1").json
    assert [one["attempt"] for one in first["items"]] == [2]
    rest = client.get(f"/jobs/{claim.id}/attempts?before={first['next_before']}").json
    assert [one["attempt"] for one in rest["items"]] == [1]
    assert client.get(f"/jobs/{queued(engine).id}/attempts").json == {"items": [], "next_before": None}


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "before=0", "before=x", "page=1"])
def test_a_wrong_page_of_attempts_is_refused(client, engine, query):
    assert client.get(f"/jobs/{queued(engine).id}/attempts?{query}").status_code == 422


def test_a_pruned_job_is_gone_and_an_unknown_one_is_not_found(client, engine, parts):
    gone = make_gone(engine, parts)
    calls = [
        ("get", ""),
        ("get", "/attempts"),
        ("post", "/cancel"),
        ("post", "/retry"),
    ]
    for job_id, status in ((gone, 410), (uuid4(), 404), ("no-uuid", 404)):
        for method, path in calls:
            assert getattr(client, method)(f"/jobs/{job_id}{path}").status_code == status


def test_what_is_gone_is_told_by_the_age_of_an_id(client, another_app):
    keeping = another_app(retention_days=0).test_client()
    for days, status in ((0, 404), (29.9, 404), (30.1, 410), (4_000, 410)):
        job_id = id_of(timedelta(days=days))
        assert client.get(f"/jobs/{job_id}").status_code == status
        assert keeping.get(f"/jobs/{job_id}").status_code == 404
    assert client.get(f"/jobs/{UUID(int=id_of(timedelta(days=60)).int, version=4)}").status_code == 404


@pytest.mark.parametrize("time_of_id", [0, 1, 2**47, 2**48 - 1])
def test_an_id_of_any_time_is_answered(client, time_of_id):
    job_id = UUID(int=time_of_id << 80 | uuid7().int & (2**80 - 1))
    assert client.get(f"/jobs/{job_id}").status_code == (404 if time_of_id > 1 else 410)
    assert client.get(f"/jobs?cursor={job_id}").status_code == 200


def test_an_old_job_that_is_there_is_not_gone(client, engine):
    job = queued(engine, id=id_of(timedelta(days=60)))
    assert client.get(f"/jobs/{job.id}").json["id"] == str(job.id)


def test_pruning_leaves_no_row(engine, parts):
    make_gone(engine, parts)
    with engine.connect() as connection:
        for table in ("jobs", "job_attempts"):
            assert connection.execute(select(func.count()).select_from(text(table))).scalar_one() == 0


def filtered(client, **query):
    answer = client.get("/jobs", query_string=query)
    assert answer.status_code == 200, answer.text
    assert answer.json["total"] == len(answer.json["items"])
    return {item["id"] for item in answer.json["items"]}


def test_jobs_are_found_by_what_is_known_of_them(client, engine):
    plain = queued(engine, payload={"task": "noop", "customer": {"id": 17}})
    tagged = queued(engine, task="sleep", queue="slow", terms=Terms(tags=("a", "b")))
    done = completed(engine, payload={"task": "noop", "customer": {"id": 18}})
    everything = {str(plain.id), str(tagged.id), str(done.id)}
    assert filtered(client) == everything
    assert filtered(client, task="sleep") == {str(tagged.id)}
    assert filtered(client, queue="slow") == {str(tagged.id)}
    assert filtered(client, tag="a") == filtered(client, tag=["a", "b"]) == {str(tagged.id)}
    assert filtered(client, tag=["a", "c"]) == set()
    assert filtered(client, payload='{"customer": {"id": 17}}') == {str(plain.id)}
    assert filtered(client, task="noop", status="completed") == {str(done.id)}
    assert filtered(client, task="noop", status="completed", payload='{"customer":{"id":17}}') == set()
    moment = iso(row_of(engine, tagged.id).created_at)
    assert filtered(client, created_before=moment) == {str(plain.id)}
    assert filtered(client, created_after=moment) == {str(tagged.id), str(done.id)}
    assert filtered(client, created_after=moment, created_before=moment) == set()
    newest = client.get("/jobs?task=noop&limit=1").json
    assert newest["total"] == 2
    assert [
        one["id"] for one in client.get(f"/jobs?task=noop&cursor={newest['next_cursor']}").json["items"]
    ] == [str(plain.id)]


@pytest.mark.parametrize(
    "query",
    ["task=", "task=%00", "queue=", "tag=", "tag=a&tag=a%00", "created_after=today", "created_after=2026-01-01T00:00:00",
     "payload=%5B%5D", "payload=%7B", "payload=%7B%22a%22%3A%22%5Cu0000%22%7D", "key=a&key=b", "colour=red"],
)  # fmt: skip
def test_a_filter_that_cannot_be_meant_is_refused(client, query):
    assert client.get(f"/jobs?{query}").status_code == 422


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z"])
def test_the_first_and_the_last_moment_there_is_are_looked_for(client, engine, moment):
    job = str(queued(engine).id)
    after = {job} if moment.startswith("0") else set()
    assert filtered(client, created_after=moment) == after
    assert filtered(client, created_before=moment) == {job} - after


def test_the_first_id_of_a_moment_comes_before_every_id_of_it(engine):
    job = queued(engine)
    made = row_of(engine, job.id).created_at
    assert (
        filters.first_id(made - timedelta(seconds=1)) < job.id < filters.first_id(made + timedelta(seconds=1))
    )


def test_a_search_that_takes_too_long_says_so(client, engine):
    queued(engine)

    def slow(_connection, _cursor, statement, parameters, *_):
        if "FROM jobs WHERE" in statement:
            return "SELECT pg_sleep(5)", {}
        return statement, parameters

    event.listen(engine, "before_cursor_execute", slow, retval=True)
    try:
        answer = client.get("/jobs?task=noop")
    finally:
        event.remove(engine, "before_cursor_execute", slow)
    assert answer.status_code == 503
    assert "narrow it" in answer.get_json(force=True)["detail"]


def test_a_handler_that_is_told_to_stop_ends_its_job_as_cancelled(handle, engine, monkeypatch):
    monkeypatch.setattr(cancellation, "LOOK_EVERY", 0.0)

    def patient(payload, context):
        assert not context.cancelled()
        ask(engine, context.job_id)
        assert context.cancelled()
        assert context.cancelled()
        context.check_cancelled()

    row = queued(engine, task=handle(patient))
    retried = metrics.jobs_retried._value.get()
    run(row.id)
    assert row_of(engine, row.id).status == "cancelled"
    (attempt,) = attempts_of(engine, row.id)
    assert (attempt["outcome"], attempt["error_type"]) == ("cancelled", "webapp.jobs.errors.Cancelled")
    assert letters_of(engine, row.id) == []
    assert metrics.jobs_retried._value.get() == retried


@pytest.mark.parametrize("error", [ValueError("x"), Discard("no use"), Snooze(5.0)])
@pytest.mark.parametrize("max_retries", [0, 3])
def test_whatever_a_handler_raises_after_it_was_asked_no_other_attempt_follows(
    handle, engine, caplog, error, max_retries
):
    def stubborn(payload, context):
        ask(engine, context.job_id)
        raise error

    row = queued(engine, task=handle(stubborn), max_retries=max_retries)
    retried = metrics.jobs_retried._value.get()
    run(row.id)
    assert row_of(engine, row.id).status == "cancelled"
    assert letters_of(engine, row.id) == []
    assert metrics.jobs_retried._value.get() == retried
    assert "job was cancelled while it ran" in caplog.messages
    assert "job failed and will be retried" not in caplog.messages


def test_stopping_without_being_asked_is_a_failure_like_any_other(handle, engine):
    def hasty(payload, context):
        context.check_cancelled()
        raise Cancelled

    row = queued(engine, task=handle(hasty))
    run(row.id)
    assert row_of(engine, row.id).status == "queued"


def test_the_row_is_looked_at_once_a_second_and_not_while_the_database_is_away(engine):
    claim, clock = claimed(engine), SettableClock()
    watch = CancelWatch(engine, claim, clock)
    assert not watch()
    ask(engine, claim.id)
    assert not watch(), "less than a second later nothing is looked up"
    clock.advance(cancellation.LOOK_EVERY)
    assert watch()
    away = CancelWatch(create_engine("postgresql+psycopg2://x@127.0.0.1:1/x"), claim)
    assert not away()
    assert cancellation.LOOK_EVERY >= 0.5


def test_who_lost_the_lease_should_stop_as_well(engine):
    claim = claimed(engine)
    with engine.begin() as connection:
        end_again(connection, claim, AttemptOutcome.LOST, ERROR, delay=0)
    assert CancelWatch(engine, claim)()


@pytest.mark.parametrize("max_retries", [0, 3])
def test_the_sweeper_cancels_what_was_asked_to_stop_and_died(engine, parts, monkeypatch, max_retries):
    claim = claimed(engine, max_retries=max_retries)
    ask(engine, claim.id)
    lost_jobs.settle(
        engine, parts.policy, "lease_expired", lambda c: store.take_held_by(c, [claim.worker_id])
    )
    assert row_of(engine, claim.id).status == "cancelled"
    assert letters_of(engine, claim.id) == []


def together(*calls):
    """Runs calls in threads that begin at the same moment; returns what they returned."""
    gate = threading.Barrier(len(calls))

    def one(call):
        gate.wait(10)
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result() for future in [pool.submit(one, call) for call in calls]]


def committed(engine, work):
    return lambda: in_transaction(engine, work)


def test_cancel_against_complete_has_one_winner(engine, service):
    ends = set()
    for _ in range(RACES):
        claim = claimed(engine)
        _, done, stopped = together(
            committed(engine, lambda c, claim=claim: ask_cancel(c, claim.id)),
            committed(engine, lambda c, claim=claim: complete(c, claim, "1")),
            committed(engine, lambda c, claim=claim: end_cancelled(c, claim)),
        )
        assert done + stopped == 1
        status = row_of(engine, claim.id).status
        assert status == ("completed" if done else "cancelled")
        assert [one["outcome"] for one in attempts_of(engine, claim.id)] == [status]
        ends.add(status)
    assert "completed" in ends


def test_cancel_against_claim_never_starts_a_cancelled_job(engine):
    for _ in range(RACES):
        job = queued(engine)
        answer, claims = together(
            committed(engine, lambda c, job=job: ask_cancel(c, job.id)),
            committed(engine, lambda c, job=job: store.claim(c, [job.id], worker_id=WORKER, lease=LEASE)),
        )
        row = row_of(engine, job.id)
        assert (answer.value, len(claims)) in {("cancelled", 0), ("asked", 1)}
        assert row.status == ("cancelled" if not claims else "processing")


def test_of_two_retries_one_queues_the_job(engine, app, answered):
    for _ in range(RACES):
        claim = dead_lettered(engine)
        retry = partial(app.test_client().post, f"/jobs/{claim.id}/retry")
        answers = together(*[lambda retry=retry: answered(retry).status_code] * 2)
        assert sorted(answers) == [200, 409]
        assert row_of(engine, claim.id).status == "queued"
        assert len([one for one in letters_of(engine, claim.id) if one["requeued_at"]]) == 1


def test_requeue_against_cancel_leaves_a_job_that_is_one_of_both(engine):
    for _ in range(RACES):
        claim = dead_lettered(engine)
        together(
            committed(engine, lambda c, claim=claim: requeue(c, claim.id)),
            committed(engine, lambda c, claim=claim: ask_cancel(c, claim.id)),
        )
        assert row_of(engine, claim.id).status in {"queued", "cancelled"}
