"""Keys in order, on real servers: their jobs run strictly one after the other, whatever fails, is lost, is cancelled or comes later."""

from __future__ import annotations

import dataclasses
import random
import threading
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from ending import complete, end_again, end_last
from factories import ERROR, age, queued, row_of
from sqlalchemy import text

from tasks.sweeps import recover
from webapp.dead_letters.store import move_to_dead_letters
from webapp.flow import store as flow_store
from webapp.flow.limits import KeyOrder, Limits, QueueLimits, Rate
from webapp.flow.model import Kind, Target, lane_of
from webapp.infra.broker.hints import Ticket
from webapp.jobs import retention, store
from webapp.jobs.control import CancelAnswer, ask_cancel, requeue
from webapp.jobs.ends import completed, released
from webapp.jobs.ends import end_attempt as end
from webapp.jobs.options import PLAIN
from webapp.jobs.states import AttemptOutcome
from webapp.queues import tickets
from webapp.queues.tickets import ClaimTerms

LONGEST = 300.0
QUEUE = Target(Kind.QUEUE, "default")
IN_ORDER = QueueLimits(key_order=KeyOrder.FIFO)
HOUR = 3_600.0


@pytest.fixture
def in_order(limit):
    """The queue's keys have an order."""
    limit(IN_ORDER)


def in_lane(engine, count=1, *, key="a", task="noop", **terms):
    """Jobs of a key as submissions leave them, one after the other."""
    return [
        queued(engine, task=task, lane=lane_of("default", key), terms=replace(PLAIN, key=key, **terms)).id
        for _ in range(count)
    ]


def take(engine, limit=1, *, worker="w/1", task="noop"):
    with engine.begin() as connection:
        terms = ClaimTerms(limit, worker, 60.0)
        return tickets.claim_due(connection, Ticket("default", task, LONGEST), terms, in_lanes=True)


def taken(engine, limit=1, **how):
    return [claim.id for claim in take(engine, limit, **how)]


def finish(engine, *claims):
    with engine.begin() as connection:
        for claim in claims:
            assert complete(connection, claim, None)


def fail(engine, claim, *, delay=HOUR, outcome=AttemptOutcome.FAILED):
    with engine.begin() as connection:
        assert end_again(connection, claim, outcome, ERROR, delay=delay)


def cancel(engine, job_id):
    with engine.begin() as connection:
        assert ask_cancel(connection, job_id) is CancelAnswer.CANCELLED


def due_now(engine):
    """The time that all wait for has come."""
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE jobs_living SET run_at = now() - interval '1 ms' WHERE run_at > now()")
        )
        connection.execute(text("UPDATE lanes SET ready_at = now() WHERE state = 'timed'"))


def rows(engine, statement, **values):
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(statement), values)]


@pytest.mark.usefixtures("in_order")
def test_jobs_of_a_key_run_one_at_a_time_as_they_were_submitted_whatever_their_priority(engine):
    jobs = [in_lane(engine, priority=priority)[0] for priority in (0, 9, 5, 9)]
    ran = []
    for number in range(4):
        (claim,) = take(engine, 100, worker=f"w/{number}")
        assert take(engine, 100, worker="w/9") == []
        ran.append(claim.id)
        finish(engine, claim)
    assert ran == jobs


@pytest.mark.usefixtures("in_order")
def test_keys_run_side_by_side_and_a_chunk_has_one_job_of_each(engine):
    heads = {in_lane(engine, 3, key=key)[0] for key in "abc"}
    assert set(taken(engine, 100)) == heads
    assert take(engine, 100) == take(engine, 100, worker="w/2") == []


@pytest.mark.usefixtures("in_order")
def test_jobs_without_a_key_are_in_order_as_well(engine):
    jobs = in_lane(engine, 2, key=None)
    (claim,) = take(engine, 10)
    assert claim.id == jobs[0]
    assert take(engine, 10, worker="w/2") == []


@pytest.mark.usefixtures("in_order")
def test_jobs_of_one_batch_run_in_its_order(client, engine):
    batch = [{"payload": {"task": "noop"}, "key": "a"} for _ in range(40)]
    ids = [one["id"] for one in client.post("/jobs/batch", json={"jobs": batch}).json["items"]]
    ran = []
    for _ in ids:
        (claim,) = take(engine)
        ran.append(str(claim.id))
        finish(engine, claim)
    assert ran == ids


@pytest.mark.usefixtures("in_order")
@pytest.mark.parametrize("outcome", [AttemptOutcome.FAILED, AttemptOutcome.SNOOZED])
def test_none_passes_a_job_that_waits_for_its_next_try(engine, outcome):
    first, second = in_lane(engine, 2, priority=5)
    (claim,) = take(engine)
    fail(engine, claim, outcome=outcome)
    (urgent,) = in_lane(engine, priority=9)
    for worker in ("w/1", "w/2"):
        assert take(engine, 10, worker=worker) == []
    # Nothing is asked of the lane meanwhile.
    ((state, wait),) = rows(engine, "SELECT state, extract(epoch FROM ready_at - now()) FROM lanes")
    assert (state, 30 < wait <= 60) == ("timed", True)
    due_now(engine)
    for expected in (first, second, urgent):
        (claim,) = take(engine, 10)
        assert claim.id == expected
        finish(engine, claim)


@pytest.mark.usefixtures("in_order")
def test_what_was_given_back_comes_first(engine):
    jobs = in_lane(engine, 2)
    (claim,) = take(engine)
    with engine.begin() as connection:
        assert end(connection, released(claim))
    assert taken(engine, 10, worker="w/2") == jobs[:1]


@pytest.mark.usefixtures("in_order")
def test_a_lost_job_is_tried_again_before_any_other_of_its_key(parts, engine):
    first, _ = in_lane(engine, 2)
    (claim,) = take(engine)
    age(engine, "lease_expires_at", 1_000, claim.id)
    assert take(engine, 10, worker="w/2") == []
    with engine.connect() as connection:
        up = store.seconds_since_start(connection)
    short = parts.settings.model_copy(update={"stuck_job_threshold": min(60, int(up))})
    assert recover.run_recovery(dataclasses.replace(parts, settings=short)) == 1
    (again,) = take(engine, 10, worker="w/2")
    assert (again.id, again.attempt) == (first, 2)
    assert take(engine, 10, worker="w/1") == []


@pytest.mark.usefixtures("in_order")
def test_a_key_goes_on_when_a_job_is_in_the_dead_letter_queue_and_not_before(engine):
    _, second = in_lane(engine, 2)
    (claim,) = take(engine)
    with engine.begin() as connection:
        assert end_last(connection, claim, AttemptOutcome.FAILED, ERROR)
    # Its end is on record, and it is not final: not even its own process passes it.
    for worker in ("w/1", "w/2"):
        assert take(engine, 10, worker=worker) == []
    with engine.begin() as connection:
        assert move_to_dead_letters(connection, claim.id, claim.attempt)
    assert taken(engine, 10, worker="w/2") == [second]


@pytest.mark.usefixtures("in_order")
def test_a_key_goes_on_when_the_job_that_it_waits_for_is_cancelled(engine):
    first, second = in_lane(engine, 2)
    in_lane(engine, task="sleep")
    (claim,) = take(engine)
    fail(engine, claim)
    assert take(engine, 10) == take(engine, 10, task="sleep") == []
    cancel(engine, first)
    (claim,) = take(engine, 10)
    assert claim.id == second
    assert take(engine, 10, worker="w/2", task="sleep") == []
    finish(engine, claim)
    assert len(take(engine, 10, worker="w/2", task="sleep")) == 1


@pytest.mark.usefixtures("in_order")
@pytest.mark.parametrize("how", ["cancelled", "expired"])
def test_a_key_goes_on_when_the_job_before_is_final_without_having_run(engine, how):
    (first,) = in_lane(engine, task="sleep", expires_in=HOUR)
    (second,) = in_lane(engine)
    assert take(engine, 10) == []
    if how == "cancelled":
        cancel(engine, first)
    else:
        age(engine, "expires_at", 2 * HOUR, first)
        with engine.begin() as connection:
            assert retention.cancel_expired(connection, 10) == 1
    assert taken(engine, 10) == [second]


@pytest.mark.usefixtures("in_order")
def test_one_that_has_expired_and_is_not_cancelled_yet_holds_no_other_back(engine):
    (first,) = in_lane(engine, expires_in=HOUR)
    (second,) = in_lane(engine)
    age(engine, "expires_at", 2 * HOUR, first)
    assert taken(engine, 10) == [second]


@pytest.mark.usefixtures("in_order")
def test_a_job_for_later_holds_no_other_back(engine):
    (later,) = in_lane(engine, delay=60.0)
    now = in_lane(engine, 2)
    ran = []
    for _ in now:
        (claim,) = take(engine, 10)
        ran.append(claim.id)
        finish(engine, claim)
    assert ran == now
    assert take(engine, 10) == []
    due_now(engine)
    assert taken(engine, 10) == [later]


@pytest.mark.usefixtures("in_order")
def test_the_order_is_one_over_all_tasks_of_a_key(engine):
    jobs = [(in_lane(engine, task=task)[0], task) for task in ("sleep", "noop", "noop", "sleep")]
    for job_id, task in jobs:
        other = "noop" if task == "sleep" else "sleep"
        assert take(engine, 10, worker="w/2", task=other) == []
        (claim,) = take(engine, 10, task=task)
        assert claim.id == job_id
        assert take(engine, 10, worker="w/2", task=other) == []
        finish(engine, claim)


@pytest.mark.usefixtures("in_order")
def test_one_that_is_locked_in_passing_is_not_passed(engine):
    first, _ = in_lane(engine, 2)
    with engine.begin() as connection:
        connection.execute(text("SELECT FROM jobs_living WHERE id = :id FOR UPDATE"), {"id": first})
        assert take(engine, 10) == []
    due_now(engine)
    assert taken(engine, 10) == [first]


@pytest.mark.usefixtures("in_order")
def test_a_process_goes_on_to_the_next_job_of_its_key_in_the_statement_that_ends_one(engine):
    _, second = in_lane(engine, 2)
    (claim,) = take(engine)
    assert _end_and_take(engine, claim) == (1, [second])


@pytest.mark.usefixtures("in_order")
def test_a_process_whose_job_was_taken_from_it_gets_no_other_of_the_key(engine):
    first, _ = in_lane(engine, 2)
    (claim,) = take(engine)
    fail(engine, claim, outcome=AttemptOutcome.LOST)
    assert _end_and_take(engine, claim) == (0, [])
    due_now(engine)
    assert taken(engine, 10, worker="w/2") == [first]


def _end_and_take(engine, claim):
    done = [completed(claim, None, 0.0, 0.01)]
    with engine.begin() as connection:
        count, following = tickets.end_and_claim(
            connection, done, Ticket("default", "noop", LONGEST), ClaimTerms(10, "w/1", 60.0), in_lanes=True
        )
    return count, [one.id for one in following]


@pytest.mark.usefixtures("in_order")
def test_a_job_that_is_queued_again_by_hand_is_the_last_of_its_key(engine, dispatcher):
    first, second, third = in_lane(engine, 3)
    (claim,) = take(engine)
    with engine.begin() as connection:
        assert end_last(connection, claim, AttemptOutcome.FAILED, ERROR)
        assert move_to_dead_letters(connection, claim.id, claim.attempt)
    with engine.begin() as connection:
        assert requeue(connection, first)
    # It is not in its lane yet, and what is there may be after it.
    assert take(engine, 10) == []
    dispatcher.dispatch("default", buffer=100, redispatch_after=60.0)
    for expected in (second, third):
        (claim,) = take(engine, 10)
        assert claim.id == expected
        finish(engine, claim)
    (claim,) = take(engine, 10)
    assert (claim.id, claim.attempt) == (first, 2)
    fail(engine, claim)
    in_lane(engine)
    assert take(engine, 10) == []


@pytest.mark.parametrize("sent", [False, True], ids=["waiting", "sent"])
def test_what_waited_before_is_in_order_too(engine, limit, dispatcher, sent):
    terms = replace(PLAIN, key="a")
    before = [
        queued(engine, dispatched=sent, terms=replace(terms, priority=priority)).id for priority in (1, 9)
    ]
    limit(IN_ORDER)
    (after,) = in_lane(engine)
    assert take(engine, 10) == []
    dispatcher._book.forget()
    dispatcher.dispatch("default", buffer=100, redispatch_after=60.0)
    ran = []
    for _ in range(3):
        (claim,) = take(engine, 10)
        ran.append(claim.id)
        finish(engine, claim)
    assert ran == [*before, after]


def test_a_key_in_order_has_its_rate_as_well(engine, limit):
    limit(QueueLimits(keys=Limits(rate=Rate(1, HOUR, 1)), key_order=KeyOrder.FIFO))
    in_lane(engine, 2)
    finish(engine, *take(engine, 10))
    assert take(engine, 10) == []
    assert rows(engine, "SELECT state FROM lanes") == [("timed",)]


def look_again(engine):
    """Lanes that wait for what another task has of their key are looked at now, and not in some seconds."""
    with engine.begin() as connection:
        flow_store.lock(connection, QUEUE)
        connection.execute(
            text(
                "UPDATE lanes SET ready_at = now() WHERE state = 'timed' AND ready_at > now() + interval '1 s'"
            )
        )


#: Keys, jobs of each, which of them fail once, and processes that claim at the same time.
KEYS, EACH, FAILS_EVERY, TAKERS = 6, 12, 7, 5


@pytest.mark.usefixtures("in_order")
def test_many_that_claim_at_once_keep_the_order_of_every_key(engine):
    """The acceptance test in small: every seventh job fails once, one of each key is for later, and all claim at the same time."""
    jobs = {f"k{number}": [] for number in range(KEYS)}
    later = {in_lane(engine, key=key, delay=60.0)[0] for key in jobs}
    for turn in range(EACH):
        for key, ids in jobs.items():
            ids.extend(in_lane(engine, key=key, task=("noop", "sleep")[turn % 2], priority=turn % 10))
    place = {job_id: number for ids in jobs.values() for number, job_id in enumerate(ids)}
    done, ran, held, lock = set(), defaultdict(list), set(), threading.Lock()
    wrong = []

    def work(number):
        rng = random.Random(number)
        while len(done) < KEYS * EACH:
            look_again(engine)
            for claim in take(
                engine, rng.choice((1, 3)), worker=f"w/{number}", task=rng.choice(("noop", "sleep"))
            ):
                key = row_of(engine, claim.id).key
                with lock:
                    wrong.extend([key] if key in held else [])
                    held.add(key)
                    ran[key].append((claim.id, claim.attempt))
                fails = place[claim.id] % FAILS_EVERY == 0 and claim.attempt == 1
                with lock:
                    held.discard(key)
                    done.update(() if fails else (claim.id,))
                if fails:
                    fail(engine, claim, delay=0.05)
                else:
                    finish(engine, claim)

    with ThreadPoolExecutor(TAKERS) as pool:
        for waiting in [pool.submit(work, number) for number in range(TAKERS)]:
            waiting.result(120)
    assert wrong == []
    for key, ids in jobs.items():
        assert ran[key] == [
            (job_id, attempt)
            for job_id in ids
            for attempt in ((1, 2) if place[job_id] % FAILS_EVERY == 0 else (1,))
        ]
    assert {row_of(engine, job_id).attempt for job_id in later} == {0}


def test_old_workers_that_claim_without_knowing_of_an_order_keep_it(engine, in_order):
    """The release before ends and claims in one statement in which the claim may come first."""
    _, second = in_lane(engine, 2)
    (claim,) = take(engine)
    assert rows(engine, "SELECT id FROM djps_take('default', 'noop', 300, 10, 'w/1', 60)") == []
    finish(engine, claim)
    assert rows(engine, "SELECT id FROM djps_take('default', 'noop', 300, 10, 'w/1', 60)") == [(second,)]
