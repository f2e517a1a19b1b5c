from __future__ import annotations

from uuid import uuid4

import pytest
from ending import complete, end_again, end_last
from factories import (
    ERROR,
    LEASE,
    WORKER,
    age,
    attempts_of,
    claimed,
    completed,
    dead_lettered,
    letters_of,
    new_job,
    preparing,
    queued,
    row_of,
    tables,
)
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from webapp.dead_letters import store as dead_letters
from webapp.dead_letters.model import DeadLetterFilter
from webapp.dead_letters.store import move_to_dead_letters
from webapp.flow.reach import EVERYTHING
from webapp.jobs import insert, pages, retention, search, store
from webapp.jobs.ends import status_after
from webapp.jobs.filters import Filter
from webapp.jobs.retry import DeathReason
from webapp.jobs.states import AttemptOutcome
from webapp.queues import store as queue_store

FAILED, LOST, RELEASED = AttemptOutcome.FAILED, AttemptOutcome.LOST, AttemptOutcome.RELEASED


def claim_again(engine, job_id, worker_id="other/3"):
    with engine.begin() as connection:
        (claim,) = store.claim(connection, [job_id], worker_id=worker_id, lease=LEASE)
    return claim


def test_a_new_job_waits_with_its_limits_and_nothing_else(engine):
    row = queued(engine, max_retries=7, timeout=1.5, payload={"a": ["ä😀", 1.5, None]}, idempotency_key="k")
    assert (row.status, row.attempt, row.retry_count) == ("queued", 0, 0)
    assert (row.max_retries, row.timeout, row.priority) == (7, 1.5, 5)
    assert row.payload == {"a": ["ä😀", 1.5, None]}
    assert row.run_at == row.created_at == row.updated_at
    assert row.dispatched_at is row.worker_id is row.lease_expires_at is row.finished_at is None
    assert row_of(engine, row.id) == row


def test_a_dispatched_job_says_when(engine):
    row = queued(engine, dispatched=True)
    assert row.dispatched_at == row.created_at


def test_a_taken_key_stores_nothing(engine):
    first = queued(engine, idempotency_key="k")
    with engine.begin() as connection:
        assert insert.insert_once(connection, new_job(idempotency_key="k"), dispatched=False) is None
        owner = insert.find_by_key(connection, "k")
        assert insert.find_by_key(connection, "other") is None
    assert owner == insert.KeyOwner(first.id, b"f", first)


def test_jobs_without_a_key_never_collide(engine):
    assert queued(engine).id != queued(engine).id


def test_what_is_not_there_is_not_found(engine):
    with engine.connect() as connection:
        assert store.find(connection, uuid4(), EVERYTHING) is None


def test_a_page_has_the_newest_first(engine):
    rows = [queued(engine) for _ in range(5)]
    done = completed(engine)

    def ids(**how):
        with engine.connect() as connection:
            return [
                row.id
                for row in pages.page(
                    connection, Filter(status=how.pop("status", None)), **({"limit": 2} | how)
                ).jobs
            ]

    assert ids(offset=1) == [rows[4].id, rows[3].id]
    assert ids(before=rows[3].id) == [rows[2].id, rows[1].id]
    assert ids(status="completed", limit=10) == [done.id]
    assert ids(status="queued", before=rows[1].id) == [rows[0].id]
    assert ids(status="failed") == ids(offset=2**31) == []


def test_jobs_are_counted_exactly_up_to_a_bound_and_reckoned_above(engine, monkeypatch):
    for _ in range(30):
        queued(engine)
    completed(engine)
    for status, count in ((None, 31), ("completed", 1), ("failed", 0)):
        with engine.connect() as connection:
            found = search.search(connection, Filter(status=status), limit=1)
        assert (found.total, found.is_estimate) == (count, False)


def test_many_jobs_are_reckoned_and_the_answer_says_so(engine, client):
    with preparing(engine) as connection:
        connection.execute(
            text(
                "INSERT INTO jobs (id, task, payload, queue, max_retries, timeout, fingerprint)"
                " SELECT gen_random_uuid(), 'noop', '{}', 'default', 1, 1, '' FROM generate_series(1, 12000)"
            )
        )
        connection.execute(text("ANALYZE jobs"))
        found = search.search(connection, Filter(), limit=1)
        assert found.is_estimate
        assert 11_000 < found.total < 13_000
        assert search.search(connection, Filter(status="queued"), limit=1).is_estimate
    body = client.get("/jobs?status=queued&limit=1").get_json()
    assert body["total_is_estimate"] is True


def test_a_claim_takes_the_lease_and_raises_the_fence(engine):
    row = queued(engine, request_id="r")
    with engine.begin() as connection:
        (claim,) = store.claim(connection, [row.id], worker_id=WORKER, lease=LEASE)
    assert (claim.id, claim.attempt, claim.worker_id, claim.request_id) == (row.id, 1, WORKER, "r")
    assert claim.waited >= 0
    now = row_of(engine, row.id)
    assert (now.status, now.attempt, now.worker_id) == ("processing", 1, WORKER)
    assert (now.lease_expires_at - now.last_attempt_at).total_seconds() == LEASE


def test_a_job_is_claimed_once(engine):
    claim = claimed(engine)
    before = tables(engine)
    with engine.begin() as connection:
        assert store.claim(connection, [claim.id, claim.id, uuid4()], worker_id="x/1", lease=LEASE) == []
        assert store.claim(connection, [], worker_id="x/1", lease=LEASE) == []
    assert tables(engine) == before


def test_a_job_is_not_claimed_before_it_is_due(engine):
    row = queued(engine)
    age(engine, "run_at", -60)
    with engine.begin() as connection:
        assert store.claim(connection, [row.id], worker_id=WORKER, lease=LEASE) == []


@pytest.mark.parametrize("make", [completed, dead_lettered], ids=["completed", "failed"])
def test_a_final_job_is_neither_claimed_nor_settled_nor_renewed_nor_dispatched(engine, make):
    claim = make(engine)
    age(engine, "run_at", 1_000)
    before = tables(engine)
    with engine.begin() as connection:
        assert store.claim(connection, [claim.id], worker_id=WORKER, lease=LEASE) == []
        assert not complete(connection, claim, None)
        assert not end_again(connection, claim, FAILED, ERROR, delay=0)
        assert not end_last(connection, claim, FAILED, ERROR)
        assert move_to_dead_letters(connection, claim.id, claim.attempt) is None
        assert store.renew(connection, [claim.id], workers=[WORKER], lease=LEASE) == set()
        assert queue_store.mark_undispatched(connection, [claim.id]) == 0
        assert queue_store.take_due(connection, "default", 10) == []
        assert queue_store.take_unclaimed(connection, "default", 10, 0) == []
        assert store.take_stuck(connection, 10) == []
        assert store.take_held_by(connection, [WORKER]) == []
        assert queue_store.seconds_to_next_due(connection, ["default"], 60) is None
    assert tables(engine) == before


def test_completion_keeps_the_result_and_the_attempt(engine):
    claim = claimed(engine)
    with engine.begin() as connection:
        assert complete(connection, claim, '{"a": 1}')
        assert status_after(connection, claim)
    row = row_of(engine, claim.id)
    assert (row.status, row.result, row.last_error) == ("completed", {"a": 1}, None)
    assert row.lease_expires_at is row.worker_id is None
    assert row.finished_at is not None
    (attempt,) = attempts_of(engine, claim.id)
    assert (attempt["attempt"], attempt["outcome"], attempt["worker_id"]) == (1, "completed", WORKER)
    assert attempt["started_at"] == row.last_attempt_at
    assert attempt["error_type"] is attempt["error_message"] is attempt["traceback"] is None


@pytest.mark.parametrize(("outcome", "burnt"), [(FAILED, 1), (LOST, 1), (RELEASED, 0)])
def test_another_try_waits_for_its_delay_and_burns_what_it_should(engine, outcome, burnt):
    claim = claimed(engine, dispatched=True)
    with engine.begin() as connection:
        assert end_again(connection, claim, outcome, ERROR, delay=30)
    row = row_of(engine, claim.id)
    assert (row.status, row.attempt, row.retry_count) == ("queued", 1, burnt)
    assert (row.run_at - row.updated_at).total_seconds() == 30
    assert row.dispatched_at is row.worker_id is row.lease_expires_at is row.finished_at is None
    assert row.last_error == "E: broken"
    (attempt,) = attempts_of(engine, claim.id)
    assert (attempt["outcome"], attempt["error_type"], attempt["error_message"], attempt["traceback"]) == (
        outcome.value,
        "E",
        "broken",
        "Traceback",
    )


def test_a_release_without_an_error_keeps_the_last_one(engine):
    claim = claimed(engine)
    with engine.begin() as connection:
        end_again(connection, claim, FAILED, ERROR, delay=0)
    again = claim_again(engine, claim.id)
    with engine.begin() as connection:
        end_again(connection, again, RELEASED, None, delay=0)
    assert row_of(engine, claim.id).last_error == "E: broken"


def test_a_stale_attempt_writes_nothing(engine):
    stale = claimed(engine)
    with engine.begin() as connection:
        end_again(connection, stale, LOST, ERROR, delay=0)
    claim_again(engine, stale.id)
    before = tables(engine)
    with engine.begin() as connection:
        assert not complete(connection, stale, "1")
        assert not end_again(connection, stale, FAILED, ERROR, delay=0)
        assert not end_last(connection, stale, FAILED, ERROR)
        assert move_to_dead_letters(connection, stale.id, stale.attempt) is None
        assert store.renew(connection, [stale.id], workers=[WORKER], lease=LEASE) == set()
        assert not status_after(connection, stale)
    assert tables(engine) == before


def test_a_job_gets_a_dead_letter_only_when_the_end_of_its_last_attempt_is_on_record(engine):
    claim = claimed(engine)
    with engine.begin() as connection:
        assert move_to_dead_letters(connection, claim.id, claim.attempt) is None
        assert end_last(connection, claim, FAILED, ERROR)
        assert not end_last(connection, claim, FAILED, ERROR)
        assert status_after(connection, claim)
    assert row_of(engine, claim.id).status == "processing"
    with engine.begin() as connection:
        dead = move_to_dead_letters(connection, claim.id, claim.attempt)
        assert move_to_dead_letters(connection, claim.id, claim.attempt) is None
    assert (dead.id, dead.task, dead.queue, dead.reason) == (claim.id, "noop", "default", "exhausted")
    row = row_of(engine, claim.id)
    assert (row.status, row.last_error, row.worker_id) == ("failed", "E: broken", None)
    (letter,) = letters_of(engine, claim.id)
    assert (letter["reason"], letter["error_type"], letter["error_message"]) == ("exhausted", "E", "broken")
    assert letter["fingerprint"] == ERROR.fingerprint


def test_a_discarded_job_says_so_in_its_dead_letter(engine):
    claim = dead_lettered(engine, reason=DeathReason.DISCARDED)
    assert letters_of(engine, claim.id)[0]["reason"] == "discarded"


def test_dead_letters_are_listed_newest_first_until_they_are_requeued(engine):
    first, second, third = (dead_lettered(engine) for _ in range(3))
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE dead_letters SET requeued_at = now() WHERE job_id = :id"), {"id": second.id}
        )
        for limit, offset, ids, goes_on in ((10, 0, [third.id, first.id], False), (1, 1, [first.id], True)):
            jobs, more = dead_letters.jobs(connection, DeadLetterFilter(), limit=limit, offset=offset)
            assert ([job.id for job in jobs], more) == (ids, goes_on)


def test_a_lease_is_renewed_for_its_holder_alone(engine):
    mine, other = claimed(engine), claimed(engine, worker_id="other/3")
    waiting = queued(engine)
    before = row_of(engine, mine.id).lease_expires_at
    with engine.begin() as connection:
        kept = store.renew(connection, [mine.id, other.id, waiting.id], workers=[WORKER], lease=LEASE)
    assert kept == {mine.id}
    assert row_of(engine, mine.id).lease_expires_at > before


def test_due_jobs_are_taken_by_priority_and_then_by_time(engine):
    rows = [queued(engine) for _ in range(4)]
    later, elsewhere = queued(engine), queued(engine, queue="other")
    sent = queued(engine, dispatched=True)
    with engine.begin() as connection:
        change = text("UPDATE jobs SET priority = :priority WHERE id = :id")
        connection.execute(change, [{"id": rows[3].id, "priority": 9}, {"id": rows[0].id, "priority": 0}])
    age(engine, "run_at", 10, rows[2].id)
    age(engine, "run_at", -60, later.id)
    with engine.begin() as connection:
        first = queue_store.take_due(connection, "default", 2)
        rest = queue_store.take_due(connection, "default", 10)
    assert [hint.id for hint in first] == [rows[3].id, rows[2].id]
    assert [hint.id for hint in rest] == [rows[1].id, rows[0].id]
    assert row_of(engine, rows[0].id).dispatched_at is not None
    assert row_of(engine, later.id).dispatched_at is None
    assert row_of(engine, elsewhere.id).dispatched_at is None
    assert row_of(engine, sent.id) == sent


def test_two_dispatchers_never_take_the_same_job(engine):
    rows = {queued(engine).id for _ in range(4)}
    with engine.begin() as one, engine.begin() as two:
        first = {hint.id for hint in queue_store.take_due(one, "default", 2)}
        second = {hint.id for hint in queue_store.take_due(two, "default", 10)}
    assert not first & second
    assert first | second == rows


def test_a_job_sent_long_ago_and_never_claimed_is_taken_again(engine):
    silent, fresh = queued(engine, dispatched=True), queued(engine, dispatched=True)
    never_sent = queued(engine)
    age(engine, "dispatched_at", 61, silent.id)
    with engine.begin() as connection:
        assert [hint.id for hint in queue_store.take_unclaimed(connection, "default", 10, 60)] == [silent.id]
        assert queue_store.take_unclaimed(connection, "default", 10, 60) == []
    assert row_of(engine, fresh.id) == fresh
    assert row_of(engine, never_sent.id) == never_sent


def test_only_waiting_jobs_are_handed_back_to_the_dispatcher(engine):
    sent, running = queued(engine, dispatched=True), claimed(engine, dispatched=True)
    with engine.begin() as connection:
        assert queue_store.mark_undispatched(connection, [sent.id, running.id, uuid4()]) == 1
    assert row_of(engine, sent.id).dispatched_at is None
    assert row_of(engine, running.id).dispatched_at is not None


def test_the_next_due_time_is_seen_within_its_window(engine):
    with engine.connect() as connection:
        assert queue_store.seconds_to_next_due(connection, ["default"], 60) is None
    row = queued(engine)
    age(engine, "run_at", -30, row.id)
    with engine.connect() as connection:
        assert 29 < queue_store.seconds_to_next_due(connection, ["default"], 60) <= 30
        assert queue_store.seconds_to_next_due(connection, ["default"], 10) is None
        assert queue_store.seconds_to_next_due(connection, ["other"], 60) is None
    age(engine, "run_at", 60, row.id)
    with engine.connect() as connection:
        assert queue_store.seconds_to_next_due(connection, ["default"], 1) == 0


def test_only_expired_leases_are_stuck(engine):
    live, late, latest = claimed(engine), claimed(engine), claimed(engine)
    age(engine, "lease_expires_at", 100, late.id)
    age(engine, "lease_expires_at", 200, latest.id)
    with engine.begin() as one, engine.begin() as two:
        taken = store.take_stuck(one, 10)
        assert {held.id for held in taken} == {latest.id, late.id}
        assert store.take_stuck(two, 10) == []
        assert live.id not in {held.id for held in taken}
    assert (taken[0].attempt, taken[0].worker_id, taken[0].recorded) == (1, WORKER, False)


def test_the_process_whose_lease_ran_out_first_is_taken_first_with_all_that_it_held(engine):
    names = ("host:1:boot/7", "host:1:boot/8")
    late, latest, too = (claimed(engine, worker_id=names[number]) for number in (0, 1, 1))
    for claim, seconds in ((late, 100), (latest, 200), (too, 90)):
        age(engine, "lease_expires_at", seconds, claim.id)
    with engine.begin() as connection:
        assert {held.id for held in store.take_stuck(connection, 1)} == {latest.id, too.id}


def test_a_stuck_job_tells_whether_its_end_is_on_record(engine):
    claim = claimed(engine)
    with engine.begin() as connection:
        end_last(connection, claim, FAILED, ERROR)
    age(engine, "lease_expires_at", 100)
    with engine.begin() as connection:
        assert [held.recorded for held in store.take_stuck(connection, 10)] == [True]


def test_holders_are_found_by_the_beginning_of_their_name_literally(engine):
    claimed(engine, worker_id="a%:1/2")
    claimed(engine, worker_id="a%:1/2")
    claimed(engine, worker_id="a%:1/3")
    claimed(engine, worker_id="ab:1/3")
    with engine.begin() as connection:
        assert sorted(store.holders(connection, "a%:1/")) == ["a%:1/2", "a%:1/3"]
        assert len(store.take_held_by(connection, ["a%:1/2"])) == 2
        assert store.take_held_by(connection, []) == []


def test_only_old_final_jobs_are_pruned_with_all_that_belongs_to_them(engine):
    old, dead, fresh = completed(engine), dead_lettered(engine), completed(engine)
    running, waiting = claimed(engine), queued(engine)
    age(engine, "finished_at", 31 * 86_400, old.id)
    age(engine, "finished_at", 40 * 86_400, dead.id)
    age(engine, "created_at", 99 * 86_400)
    with engine.begin() as connection:
        assert retention.prune(connection, days=30, limit=1) == 1
        assert store.find(connection, dead.id, EVERYTHING) is None
        assert retention.prune(connection, days=30, limit=10) == 1
        assert retention.prune(connection, days=30, limit=10) == 0
        left = {row.id for row in pages.page(connection, Filter(), limit=100).jobs}
    assert left == {fresh.id, running.id, waiting.id}
    assert attempts_of(engine, dead.id) == letters_of(engine, dead.id) == []


def test_the_server_says_how_long_it_is_up(engine):
    with engine.connect() as connection:
        assert store.seconds_since_start(connection) > 0


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ("status = 'done'", "jobs_status_known"),
        ("status = 'processing', attempt = 1, last_attempt_at = now(), worker_id = 'w'", "jobs_lease_while"),
        ("lease_expires_at = now()", "jobs_lease_while_processing"),
        ("worker_id = 'w'", "jobs_worker_while_processing"),
        ("status = 'completed'", "jobs_finished_when_final"),
        ("finished_at = now()", r"jobs_\d{8}_final"),
        ("status = 'completed', finished_at = now(), worker_id = 'w'", r"jobs_\d{8}_final"),
        ("status = 'failed', finished_at = now(), result = '1'", r"jobs_\d{8}_final"),
        ("attempt = 1", "jobs_attempted_when_claimed"),
        ("retry_count = 1", "jobs_retries_within_attempts"),
        ("cancel_requested_at = now()", "jobs_cancel_asked_of_running"),
        ("result = '1'", "jobs_result_when_completed"),
        ("payload = '[]'", "jobs_payload_is_object"),
        ("idempotency_key = ''", "jobs_key_length"),
        ("idempotency_key = repeat('k', 268)", "jobs_key_length"),
        ("max_retries = 101", "jobs_max_retries_in_range"),
        ("timeout = 0", "jobs_timeout_positive"),
        ("priority = 10", "jobs_priority_in_range"),
    ],
)
def test_the_database_itself_refuses_a_row_that_cannot_be(engine, change, rule):
    queued(engine)
    with pytest.raises(IntegrityError, match=rule), engine.begin() as connection:
        connection.execute(text(f"UPDATE jobs SET {change}"))  # noqa: S608 - from the table above
