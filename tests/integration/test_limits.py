"""Limits on real servers: who gets how much, what is counted, what becomes of jobs that were there before or come back."""

from __future__ import annotations

import dataclasses
import json
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import pytest
from ending import complete, end_again
from factories import ERROR, age, claimed, ended, queued, row_of, waiting
from sqlalchemy import text

from tasks.chunk import execute_due, execute_jobs
from tasks.execution import execute_job
from tasks.sweeps import recover
from webapp.flow import lanes
from webapp.flow import store as flow_store
from webapp.flow.limits import NO_LIMITS, Limits, QueueLimits, Rate
from webapp.flow.model import Kind, Target, lane_of
from webapp.infra.broker.hints import Ticket
from webapp.jobs import store
from webapp.jobs.control import requeue
from webapp.jobs.ends import completed
from webapp.jobs.options import PLAIN
from webapp.jobs.states import AttemptOutcome
from webapp.queues import tickets
from webapp.queues.tickets import ClaimTerms

LONGEST = 300.0
QUEUE = Target(Kind.QUEUE, "default")
TASK = Target(Kind.TASK, "noop")


def in_lane(engine, count=1, *, key=None, **values):
    """Jobs as a submission leaves them in their lane."""
    lane = lane_of(values.get("queue", "default"), key)
    return [queued(engine, lane=lane, terms=replace(PLAIN, key=key), **values) for _ in range(count)]


def take(engine, limit=1, *, worker="w/1", queue="default", task="noop"):
    with engine.begin() as connection:
        terms = ClaimTerms(limit, worker, 60.0)
        return tickets.claim_due(connection, Ticket(queue, task, LONGEST), terms, in_lanes=True)


def finish(engine, *claims):
    with engine.begin() as connection:
        for claim in claims:
            assert complete(connection, claim, None)


def look(engine, queue="default"):
    with engine.connect() as connection:
        return lanes.look(connection, queue, 200)


def dispatch(dispatcher, queue="default"):
    dispatcher._book.forget()
    return dispatcher.dispatch(queue, buffer=100, redispatch_after=60.0)


def rows(engine, statement, **values):
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(statement), values)]


def test_the_number_of_a_lane_is_the_same_in_the_database(engine):
    for queue, key in (("default", None), ("default", ""), ("mail", "acme"), ("ä", "ü\x1f" * 50)):
        found = rows(engine, "SELECT djps_lane(:queue, :key)", queue=queue, key=key)
        assert found == [(lane_of(queue, key),)]


def test_no_more_processes_hold_jobs_than_a_queue_allows(engine, limit):
    limit(QueueLimits(Limits(concurrency=2)))
    in_lane(engine, 5)
    first, second = take(engine, worker="w/1"), take(engine, worker="w/2")
    assert [len(first), len(second), len(take(engine, worker="w/3"))] == [1, 1, 0]
    finish(engine, *first)
    assert len(take(engine, worker="w/3")) == 1


def test_a_process_that_holds_a_job_hands_its_own_slot_on(engine, limit):
    limit(QueueLimits(Limits(concurrency=1)))
    in_lane(engine, 3)
    (first,) = take(engine)
    done = [_completed(first)]
    with engine.begin() as connection:
        count, following = tickets.end_and_claim(
            connection, done, Ticket("default", "noop", LONGEST), ClaimTerms(1, "w/1", 60.0), in_lanes=True
        )
    assert (count, len(following)) == (1, 1)
    assert take(engine, worker="w/2") == []


def _completed(claim):
    return completed(claim, None, 0.0, 0.01)


def test_a_limit_holds_however_many_claim_at_once(engine, limit):
    limit(QueueLimits(Limits(concurrency=3)))
    in_lane(engine, 40)
    with ThreadPoolExecutor(12) as pool:
        taken = list(pool.map(lambda number: take(engine, worker=f"w/{number}"), range(12)))
    assert sum(map(bool, taken)) == 3
    assert rows(engine, "SELECT count(DISTINCT worker_id) FROM jobs WHERE status = 'processing'") == [(3,)]


def test_a_task_is_limited_over_all_queues(engine, limit):
    limit(QueueLimits(Limits(concurrency=1)), TASK)
    in_lane(engine, 2)
    in_lane(engine, 2, queue="other")
    in_lane(engine, 1, task="sleep")
    assert len(take(engine, worker="w/1")) == 1
    assert take(engine, worker="w/2", queue="other") == []
    assert len(take(engine, worker="w/2", task="sleep")) == 1


def test_each_key_has_its_own_limit(engine, limit):
    limit(QueueLimits(keys=Limits(concurrency=1)))
    for key in ("a", "b"):
        in_lane(engine, 3, key=key)
    claims = [take(engine, worker=f"w/{number}") for number in range(3)]
    assert [len(one) for one in claims] == [1, 1, 0]
    assert {row_of(engine, claim.id).key for one in claims for claim in one} == {"a", "b"}
    finish(engine, *claims[0])
    (third,) = take(engine, worker="w/2")
    assert row_of(engine, third.id).key == row_of(engine, claims[0][0].id).key


def test_a_keys_limit_is_one_over_all_tasks_of_its_queue(engine, limit):
    limit(QueueLimits(keys=Limits(concurrency=1)))
    in_lane(engine, 2, key="a")
    in_lane(engine, 2, key="a", task="sleep")
    (first,) = take(engine, worker="w/1")
    assert take(engine, worker="w/2", task="sleep") == []
    finish(engine, first)
    assert len(take(engine, worker="w/2", task="sleep")) == 1
    assert take(engine, worker="w/1") == []


@pytest.mark.parametrize("task", ["noop", "sleep"])
def test_what_comes_to_a_key_while_its_only_job_runs_waits(engine, limit, task):
    limit(QueueLimits(keys=Limits(concurrency=1)))
    in_lane(engine, 1, key="a")
    # More than there are: the lane is empty then.
    (running,) = take(engine, 10, worker="w/1")
    in_lane(engine, 1, key="a", task=task)
    assert take(engine, 10, worker="w/2", task=task) == []
    finish(engine, running)
    assert len(take(engine, 10, worker="w/2", task=task)) == 1


@pytest.mark.parametrize("before", [2, None])
def test_a_limit_of_keys_that_comes_while_they_run_holds_at_once(engine, limit, before):
    limit(QueueLimits(Limits(concurrency=9), Limits(concurrency=before)))
    in_lane(engine, 4, key="a")
    (first,) = take(engine, worker="w/1")
    limit(QueueLimits(Limits(concurrency=9), Limits(concurrency=1)))
    assert take(engine, worker="w/2") == []
    finish(engine, first)
    assert len(take(engine, worker="w/2")) == 1


def test_keys_take_turns_whatever_waits_of_them(engine, limit):
    limit(QueueLimits(fair=True))
    in_lane(engine, 50, key="noisy")
    in_lane(engine, 3, key="quiet")
    order = []
    for _ in range(6):
        (claim,) = take(engine)
        order.append(row_of(engine, claim.id).key)
        finish(engine, claim)
    assert sorted(order) == ["noisy"] * 3 + ["quiet"] * 3
    # One that comes new is next, though the other has waited all the time.
    in_lane(engine, 1, key="new")
    (claim,) = take(engine)
    assert row_of(engine, claim.id).key == "new"


def test_a_key_that_comes_back_has_no_turns_in_store(engine, limit):
    limit(QueueLimits(fair=True))
    in_lane(engine, 20, key="busy")
    in_lane(engine, 1, key="rare")
    finish(engine, *[claim for _ in range(10) for claim in take(engine)])
    in_lane(engine, 10, key="rare")
    next_keys = [row_of(engine, claim.id).key for _ in range(6) for claim in take(engine)]
    assert 2 <= next_keys.count("busy") <= 4


def test_a_weight_is_a_share_of_the_turns(engine, limit):
    limit(QueueLimits(fair=True))
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO key_limits (queue, key, weight) VALUES ('default', 'heavy', 3)"))
    for key in ("heavy", "light"):
        in_lane(engine, 40, key=key)
    keys = [row_of(engine, claim.id).key for _ in range(20) for claim in take(engine)]
    assert 14 <= keys.count("heavy") <= 16


def test_a_rate_lets_as_many_start_as_it_says_and_no_attempt_is_lost(engine, limit):
    limit(QueueLimits(Limits(rate=Rate(2, 3_600.0, 2))))
    made = in_lane(engine, 5)
    assert [len(take(engine, 10)), len(take(engine, 10))] == [2, 0]
    assert sorted(row_of(engine, row.id).attempt for row in made) == [0, 0, 0, 1, 1]
    assert look(engine) == {}


def test_a_rate_goes_on_when_its_time_has_come(engine, limit):
    limit(QueueLimits(Limits(rate=Rate(1, 3_600.0, 1))))
    in_lane(engine, 2)
    assert len(take(engine)) == 1
    assert take(engine) == []
    with engine.begin() as connection:
        connection.execute(text("UPDATE queues SET next_start = next_start - 3600"))
    assert look(engine)["noop"].jobs == 1
    assert len(take(engine)) == 1


def test_a_clock_that_was_set_back_holds_starts_up_for_one_period_at_most(engine, limit):
    limit(QueueLimits(Limits(rate=Rate(1, 60.0, 1))))
    in_lane(engine, 1)
    with engine.begin() as connection:
        connection.execute(text("UPDATE queues SET next_start = extract(epoch FROM now()) + 86400"))
    found = rows(engine, "SELECT djps_paid_until(60, next_start, 0) FROM queues")
    assert found == [(60.0,)]


def test_each_key_has_its_own_rate(engine, limit):
    limit(QueueLimits(keys=Limits(rate=Rate(1, 3_600.0, 1))))
    for key in ("a", "b"):
        in_lane(engine, 3, key=key)
    claims = take(engine, 10)
    assert sorted(row_of(engine, claim.id).key for claim in claims) == ["a", "b"]
    assert take(engine, 10, worker="w/2") == []
    assert rows(engine, "SELECT DISTINCT state FROM lanes") == [("timed",)]


def test_a_key_that_has_had_more_than_its_new_rate_allows_waits(engine, limit):
    limit(QueueLimits(keys=Limits(rate=Rate(10, 10.0, 10))))
    in_lane(engine, 10, key="eager")
    assert len(take(engine, 10)) == 10
    limit(QueueLimits(keys=Limits(rate=Rate(10, 10.0, 1))))
    in_lane(engine, 1, key="eager")
    (other,) = in_lane(engine, 1, key="other")
    assert [claim.id for claim in take(engine, 10)] == [other.id]
    assert rows(engine, "SELECT state FROM lanes WHERE key = 'eager'") == [("timed",)]


def test_what_is_due_later_is_taken_when_it_is_due(engine, limit):
    limit(QueueLimits(Limits(concurrency=5)))
    (row,) = in_lane(engine, 1)
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE jobs_living SET run_at = now() + interval '1 hour' WHERE id = :id"), {"id": row.id}
        )
    assert take(engine) == []
    assert rows(engine, "SELECT state FROM lanes") == [("timed",)]
    with engine.begin() as connection:
        connection.execute(text("UPDATE jobs_living SET run_at = now() - interval '1 second'"))
        connection.execute(text("UPDATE lanes SET ready_at = now() - interval '1 second'"))
    assert len(take(engine)) == 1


@pytest.fixture
def behind_the_gate(engine, eventually):
    """A claim that waits for its queue's row while a block runs."""
    waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE :claim"

    @contextmanager
    def wait():
        with ThreadPoolExecutor(1) as pool, engine.begin() as gate:
            flow_store.lock(gate, QUEUE)
            waiting = pool.submit(take, engine, worker="w/2")
            eventually(lambda: rows(engine, waits, claim="%djps_take%") == [(1,)])
            yield waiting
            gate.commit()
            waiting.result(10)

    return wait


def test_what_came_while_a_claim_waited_for_its_turn_is_due(engine, limit, behind_the_gate):
    limit(QueueLimits(Limits(concurrency=5)))
    with behind_the_gate() as waiting:
        (row,) = in_lane(engine, 1, key="new")
    assert [claim.id for claim in waiting.result()] == [row.id]


def test_a_task_that_was_limited_while_a_claim_waited_is_limited(engine, limit, behind_the_gate):
    limit(QueueLimits(Limits(concurrency=5)))
    in_lane(engine, 2)
    assert len(take(engine, worker="w/1")) == 1
    with behind_the_gate() as waiting:
        limit(QueueLimits(Limits(concurrency=1)), TASK)
    assert waiting.result() == []


def test_a_job_that_was_locked_in_passing_is_taken_later(engine, limit):
    limit(QueueLimits(Limits(concurrency=5)))
    (row,) = in_lane(engine, 1)
    with engine.begin() as connection:
        connection.execute(text("SELECT FROM jobs_living WHERE id = :id FOR UPDATE"), {"id": row.id})
        assert take(engine) == []
    assert rows(engine, "SELECT state FROM lanes") == [("timed",)]
    with engine.begin() as connection:
        connection.execute(text("UPDATE lanes SET ready_at = now() - interval '1 second'"))
    assert len(take(engine)) == 1


def test_a_retry_comes_back_to_its_lane(engine, limit):
    limit(QueueLimits(Limits(concurrency=1)))
    in_lane(engine, 1)
    (claim,) = take(engine)
    with engine.begin() as connection:
        assert end_again(connection, claim, AttemptOutcome.FAILED, ERROR, delay=0.0)
    assert rows(engine, "SELECT CAST(dispatched_at AS text), lane FROM jobs") == [
        ("infinity", lane_of("default", None))
    ]
    (again,) = take(engine)
    assert (again.id, again.attempt) == (claim.id, 2)


def test_a_job_of_history_is_filed_anew(engine, limit, dispatcher):
    limit(QueueLimits(Limits(concurrency=1)))
    in_lane(engine, 1, key="a")
    (claim,) = take(engine)
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE jobs SET cancel_requested_at = now() WHERE id = :id"), {"id": claim.id}
        )
    with engine.begin() as connection:
        assert end_again(connection, claim, AttemptOutcome.FAILED, ERROR, delay=0.0)
    assert row_of(engine, claim.id).status == "cancelled"
    with engine.begin() as connection:
        assert requeue(connection, claim.id)
    assert take(engine) == []
    assert dispatch(dispatcher) == {"ticket": 1}
    assert [one.id for one in take(engine)] == [claim.id]


@pytest.mark.parametrize("target", [QUEUE, TASK], ids=["queue", "task"])
@pytest.mark.parametrize("message", ["job", "jobs", "ticket"])
def test_no_message_starts_a_job_beside_the_lanes(engine, limit, target, message, handle):
    row = queued(engine, dispatched=message != "ticket")
    limit(QueueLimits(Limits(concurrency=1)), target)
    in_lane(engine, 1)
    assert len(take(engine)) == 1
    if message == "job":
        ended(execute_job, str(row.id))
    elif message == "jobs":
        ended(execute_jobs, [str(row.id)])
    else:
        ended(execute_due, "default", "noop", LONGEST)
    assert row_of(engine, row.id).attempt == 0


@pytest.mark.parametrize("dispatched", [False, True], ids=["waiting", "sent"])
def test_what_waited_before_is_filed_into_its_lane(engine, limit, dispatcher, redis, dispatched):
    made = [queued(engine, dispatched=dispatched, terms=replace(PLAIN, key=key)) for key in ("a", "b", None)]
    limit(QueueLimits(keys=Limits(concurrency=1)))
    assert dispatch(dispatcher)["ticket"] >= 1
    assert all(dict(json_task(one))["task"] == "tasks.execute_due" for one in waiting(redis))
    found = rows(engine, "SELECT key, lane FROM jobs")
    assert dict(found) == {key: lane_of("default", key) for key in ("a", "b", None)}
    assert {claim.id for claim in take(engine, 10)} == {row.id for row in made}


def json_task(message):
    return json.loads(message)["headers"]


def test_what_runs_when_a_limit_comes_counts(engine, limit, app):
    running = claimed(engine, worker_id="w/9")
    in_lane(engine, 1)
    limit(QueueLimits(Limits(concurrency=1)))
    with engine.begin() as connection:
        assert lanes.file_running(connection, ["default"], []) == 1
    assert take(engine, worker="w/1") == []
    finish(engine, running)
    assert len(take(engine, worker="w/1")) == 1


@pytest.mark.parametrize("target", [QUEUE, TASK], ids=str)
def test_without_limits_jobs_leave_their_lanes(engine, limit, dispatcher, target):
    limit(QueueLimits(Limits(concurrency=1)), target)
    made = in_lane(engine, 3, key="a")
    (running,) = take(engine)
    limit(NO_LIMITS, target)
    dispatch(dispatcher)
    dispatch(dispatcher)
    assert {row.lane for row in _rows_of(engine)} == {None}
    standing = "SELECT has_lanes FROM queues" if target is QUEUE else "SELECT has_lanes FROM task_limits"
    # A submission may be on its way that goes by the limits.
    assert rows(engine, standing) == [(True,)]
    in_lane(engine, 1, key="a")
    dispatch(dispatcher)
    with engine.begin() as connection:
        connection.execute(text("UPDATE queues SET updated_at = now() - interval '61 seconds'"))
        connection.execute(text("UPDATE task_limits SET updated_at = now() - interval '61 seconds'"))
    dispatch(dispatcher)
    assert {row.lane for row in _rows_of(engine)} == {None}
    finish(engine, running)
    assert rows(engine, standing) == [(False,)]
    assert rows(engine, "SELECT count(*) FROM lanes") == [(0,)]
    assert {row_of(engine, row.id).status for row in made} == {"queued", "completed"}


def test_a_task_without_limits_keeps_lanes_where_its_queue_has_some(engine, limit, dispatcher):
    limit(QueueLimits(Limits(concurrency=1)))
    limit(QueueLimits(Limits(concurrency=1)), TASK)
    in_lane(engine, 2)
    limit(NO_LIMITS, TASK)
    dispatch(dispatcher)
    assert {row.lane for row in _rows_of(engine)} == {lane_of("default", None)}
    assert len(take(engine)) == 1


def _rows_of(engine):
    with engine.connect() as connection:
        return connection.execute(text("SELECT lane, status FROM jobs")).all()


def test_tickets_are_as_many_as_there_is_room(engine, limit, dispatcher, redis):
    limit(QueueLimits(Limits(concurrency=3)))
    in_lane(engine, 10)
    assert dispatch(dispatcher) == {"ticket": 3}
    assert dispatch(dispatcher) == {}
    redis.flushdb()
    for number in range(3):
        assert len(take(engine, worker=f"w/{number}")) == 1
    assert dispatch(dispatcher) == {}


def test_a_lost_slot_is_free_when_its_job_is(parts, engine, limit):
    limit(QueueLimits(Limits(concurrency=1)))
    in_lane(engine, 2)
    (claim,) = take(engine)
    assert take(engine, worker="w/2") == []
    age(engine, "lease_expires_at", 1_000, claim.id)
    # A lease that is shorter than this PostgreSQL is up.
    with engine.connect() as connection:
        up = store.seconds_since_start(connection)
    short = parts.settings.model_copy(update={"stuck_job_threshold": min(60, int(up))})
    assert recover.run_recovery(dataclasses.replace(parts, settings=short)) == 1
    assert len(take(engine, worker="w/2")) == 1


def test_a_submission_goes_to_its_lane_and_calls_it(client, engine, limit, redis):
    limit(QueueLimits(Limits(concurrency=1)))
    answer = client.post("/jobs", json={"payload": {"task": "noop"}, "key": "acme"})
    assert (answer.status_code, answer.json["key"]) == (201, "acme")
    assert client.get(f"/jobs/{answer.json['id']}").json["key"] == "acme"
    batch = client.post(
        "/jobs/batch",
        json={"jobs": [{"payload": {"task": "noop"}}, {"payload": {"task": "noop"}, "key": "b"}]},
    )
    assert batch.status_code in {200, 201}
    assert {lane for (lane,) in rows(engine, "SELECT lane FROM jobs")} == {
        lane_of("default", key) for key in ("acme", None, "b")
    }
    assert {json_task(one)["task"] for one in waiting(redis)} == {"tasks.execute_due"}


def test_a_key_is_kept_where_nothing_is_limited(client, engine):
    answer = client.post("/jobs", json={"payload": {"task": "noop"}, "key": "acme"})
    assert answer.json["key"] == "acme"
    assert rows(engine, "SELECT key, lane FROM jobs") == [("acme", None)]


@pytest.mark.parametrize("key", ["", "x" * 201, 7])
def test_a_key_that_breaks_a_rule_is_refused(client, key):
    answer = client.post("/jobs", json={"payload": {"task": "noop"}, "key": key})
    assert answer.status_code == 422
    assert [one["field"] for one in answer.json["errors"]] == ["key"]


def test_limits_are_set_shown_put_on_record_and_taken_away(client, engine):
    body = {
        "concurrency": 4,
        "rate": {"limit": 100, "per": 60},
        "keys": {"concurrency": 1},
        "by": "ada",
        "why": "relay",
    }
    answer = client.put("/queues/default", json=body)
    assert answer.status_code == 200
    limits = {
        "concurrency": 4, "rate": {"limit": 100, "per": 60.0, "burst": 2},
        "keys": {"concurrency": 1, "rate": None, "order": None, "max_depth": None}, "fair": False, "ageing": None,
        "max_depth": None, "max_age": None,
    }  # fmt: skip
    assert answer.json["limits"] == limits
    assert client.get("/queues/default").json["limits"] == limits
    stale = client.put("/queues/default", json={"concurrency": 1}, headers={"If-Match": '"0"'})
    assert stale.status_code == 412
    gone = client.delete("/queues/default", headers={"If-Match": answer.headers["ETag"]})
    assert gone.json["limits"] == NO_LIMITS.document()
    changes = client.get("/flow/changes").json["items"]
    assert [(one["target"], one["who"] is not None, one["new"]["concurrency"]) for one in changes] == [
        ("queues/default", True, None), ("queues/default", True, 4),
    ]  # fmt: skip
    assert client.put("/queues/nowhere", json={}).status_code == 404
    assert client.put("/tasks/noop", json={"keys": {}}).status_code == 422
    assert client.put("/tasks/noop", json={"concurrency": 2}).json["limits"]["concurrency"] == 2
    assert client.delete("/tasks/noop").json["limits"]["concurrency"] is None


def test_an_order_is_refused_where_more_than_one_job_of_a_key_may_run(client):
    refused = client.put("/queues/default", json={"keys": {"order": "fifo", "concurrency": 2}})
    assert refused.status_code == 422
    assert [one["field"] for one in refused.json["errors"]] == ["keys.order"]
    assert client.put("/queues/default/keys/a", json={"concurrency": 2}).status_code == 200
    refused = client.put("/queues/default", json={"keys": {"order": "fifo"}})
    assert (refused.status_code, "key 'a' of queue 'default'" in refused.json["detail"]) == (409, True)
    assert client.put("/queues/default/keys/a", json={"concurrency": 1}).status_code == 200
    answer = client.put("/queues/default", json={"keys": {"order": "fifo"}, "ageing": 60})
    assert (answer.status_code, answer.json["limits"]["keys"]["order"], answer.json["limits"]["ageing"]) == (
        200,
        "fifo",
        60.0,
    )
    assert client.get("/queues/default").json["limits"] == answer.json["limits"]
    assert client.get("/flow/changes").json["items"][0]["new"] == answer.json["limits"]
    refused = client.put("/queues/default/keys/a", json={"concurrency": 2})
    assert (refused.status_code, "run one at a time" in refused.json["detail"]) == (409, True)
    assert client.put("/queues/default", json=answer.json["limits"]).json["version"] == answer.json["version"]


def test_an_answer_waits_until_every_process_knows(client, engine):
    began = time.monotonic()
    claimed(engine, worker_id="w/9")
    assert client.put("/queues/default", json={"concurrency": 1}).status_code == 200
    assert time.monotonic() - began >= 1.0
    assert rows(engine, "SELECT lane FROM jobs") == [(lane_of("default", None),)]
    in_lane(engine, 1)
    assert take(engine) == []
