"""A job of its own tells of each end of a job with a callback, once."""

from __future__ import annotations

import threading

import pytest
from ending import complete
from factories import age, claimed, completed, dead_lettered, queued, row_of
from sqlalchemy import text
from uuid_utils.compat import uuid7

from tasks.handlers.http import HttpPayload, read_payload
from tasks.sweeps import callbacks as delivering
from tasks.sweeps import late_callbacks
from webapp.jobs import callbacks, control, store
from webapp.jobs.errors import Discard

URL = "https://example.org/hook"


def with_callback(engine, job_id, url=URL):
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE jobs SET callback_url = :url WHERE id = :id"), {"id": job_id, "url": url}
        )


def callbacks_of(engine, job_id):
    """The callback job that is noted, and all jobs that tell of this one."""
    with engine.connect() as connection:
        noted = connection.execute(
            text("SELECT callback_job_id FROM jobs WHERE id = :id"), {"id": job_id}
        ).scalar()
        made = connection.execute(
            text("SELECT id FROM jobs WHERE payload #>> '{json,data,id}' = :id ORDER BY id"),
            {"id": str(job_id)},
        ).scalars()
        return noted, list(made)


def body_of(engine, job_id):
    noted, made = callbacks_of(engine, job_id)
    assert [noted] == made
    return row_of(engine, noted).payload["json"]


def test_an_end_is_told_by_a_job_of_its_own(parts, engine):
    job = completed(engine, result='{"n": 1}')
    with_callback(engine, job.id)
    assert delivering.run_callbacks(parts) == 1
    body = body_of(engine, job.id)
    row = row_of(engine, job.id)
    told = row_of(engine, callbacks_of(engine, job.id)[0])
    assert (told.task, told.queue, told.status, told.max_retries) == ("http", "default", "queued", 8)
    assert told.payload["url"] == URL
    with engine.begin() as connection:
        (claim,) = store.claim(connection, [told.id], worker_id="w", lease=60.0)
    assert claim.callback_of == job.id
    assert HttpPayload.model_validate(told.payload).has_json
    assert body["type"] == "job.completed"
    assert body["timestamp"] == row.finished_at.isoformat().replace("+00:00", "Z")
    assert body["data"] == {
        "id": str(job.id),
        "status": "completed",
        "task": "noop",
        "queue": "default",
        "attempt": 1,
        "retry_count": 0,
        "tags": [],
        "result": {"n": 1},
        "result_omitted": False,
        "result_note": None,
        "last_error": None,
        "created_at": row.created_at.isoformat().replace("+00:00", "Z"),
        "finished_at": body["timestamp"],
    }


def test_a_callback_waits_for_the_dispatcher_and_retries_for_a_day(parts, engine):
    job = completed(engine)
    with_callback(engine, job.id)
    delivering.run_callbacks(parts)
    with engine.connect() as connection:
        row = connection.execute(
            text("SELECT dispatched_at, backoff, callback_url FROM jobs WHERE task = 'http'")
        ).one()
    assert row == (None, list(callbacks.BACKOFF), None)
    assert parts.dispatcher.dispatch("default", buffer=10, redispatch_after=60.0) == {"due": 1}


def test_a_job_names_the_job_that_tells_of_it(parts, engine, client):
    job = completed(engine)
    with_callback(engine, job.id)
    assert client.get(f"/jobs/{job.id}").json["callback_job_id"] is None
    delivering.run_callbacks(parts)
    told_by = client.get(f"/jobs/{job.id}").json["callback_job_id"]
    assert client.get(f"/jobs/{told_by}").json["task"] == "http"


def test_failed_and_cancelled_jobs_are_told_of_too(parts, engine):
    failed, cancelled = dead_lettered(engine), queued(engine)
    with engine.begin() as connection:
        control.ask_cancel(connection, cancelled.id)
    for job in (failed, cancelled):
        with_callback(engine, job.id)
    assert delivering.run_callbacks(parts) == 2
    assert body_of(engine, failed.id)["type"] == "job.failed"
    assert body_of(engine, failed.id)["data"]["last_error"] == "E: broken"
    assert body_of(engine, cancelled.id)["type"] == "job.cancelled"


def test_no_one_is_told_of_a_job_that_goes_on_or_has_no_callback(parts, engine):
    for job in (queued(engine), claimed(engine)):
        with_callback(engine, job.id)
    completed(engine)
    assert delivering.run_callbacks(parts) == 0


def test_an_end_is_told_once(parts, engine):
    job = completed(engine)
    with_callback(engine, job.id)
    assert [delivering.run_callbacks(parts) for _ in range(3)] == [1, 0, 0]
    assert len(callbacks_of(engine, job.id)[1]) == 1


def test_many_tellers_at_once_tell_once(parts, engine):
    jobs = [completed(engine) for _ in range(40)]
    for job in jobs:
        with_callback(engine, job.id)
    told = []
    tellers = [
        threading.Thread(target=lambda: told.append(delivering.run_callbacks(parts, batch=7)))
        for _ in range(4)
    ]
    for teller in tellers:
        teller.start()
    for teller in tellers:
        teller.join()
    # Who finds every row held leaves them to the next tick.
    told.append(delivering.run_callbacks(parts))
    assert sum(told) == 40
    assert all(len(callbacks_of(engine, job.id)[1]) == 1 for job in jobs)


def test_an_ending_that_is_taken_is_not_made_twice_even_by_hand(parts, engine):
    job = completed(engine)
    with_callback(engine, job.id)
    with engine.begin() as connection:
        endings = callbacks.take_ended(connection, 10)
        for expected in (1, 0):
            made = callbacks.insert_callbacks(connection, endings, [uuid7()], queue="default", timeout=30.0)
            assert made == expected


def test_a_job_that_is_requeued_is_told_of_again(parts, engine):
    job = dead_lettered(engine)
    with_callback(engine, job.id)
    assert delivering.run_callbacks(parts) == 1
    with engine.begin() as connection:
        assert control.requeue(connection, job.id)
    assert delivering.run_callbacks(parts) == 0
    with engine.begin() as connection:
        (claim,) = store.claim(connection, [job.id], worker_id="w/1", lease=60.0)
        assert complete(connection, claim, None)
    assert delivering.run_callbacks(parts) == 1
    assert len(callbacks_of(engine, job.id)[1]) == 2


def test_a_result_that_is_too_large_is_left_out(parts, engine):
    job = completed(engine, result=f'"{"x" * callbacks.MAX_RESULT_BYTES}"')
    with_callback(engine, job.id)
    delivering.run_callbacks(parts)
    data = body_of(engine, job.id)["data"]
    assert (data["result"], data["result_omitted"]) == (None, True)


def test_a_wrong_url_is_discarded_by_the_callback_and_not_by_the_tick(parts, engine):
    job = completed(engine)
    with_callback(engine, job.id, "http://127.0.0.1/")
    assert delivering.run_callbacks(parts) == 1
    with pytest.raises(Discard, match="loopback"):
        read_payload(row_of(engine, callbacks_of(engine, job.id)[0]).payload)


def test_the_tick_tells(engine):
    job = completed(engine)
    with_callback(engine, job.id)
    delivering.deliver_callbacks.run()
    assert callbacks_of(engine, job.id)[0] is not None


def test_ends_of_more_than_a_day_ago_are_told_by_a_sweep_of_their_own(parts, engine):
    """No maintenance worker has run for a day; the sweep of each second does not look so far back."""
    job = completed(engine)
    with_callback(engine, job.id)
    age(engine, "finished_at", 3 * 86_400, job.id)
    assert delivering.run_callbacks(parts) == 0
    late_callbacks.late_callbacks.run()
    noted, made = callbacks_of(engine, job.id)
    assert [noted] == made
    late_callbacks.late_callbacks.run()
    assert callbacks_of(engine, job.id) == (noted, made)
