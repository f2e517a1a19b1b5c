"""Bounds of submissions on real servers: who is refused and who is not, when a client is told to come again, and that it is true."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from clock import SettableClock
from ending import end_again
from factories import ERROR, books, claimed, dead_lettered, queued, row_of, service_over, tables
from sqlalchemy import text
from uuid_utils.compat import uuid7

from webapp.flow import look_store
from webapp.flow import store as flow_store
from webapp.flow.admission import Bounds
from webapp.flow.limits import QueueLimits
from webapp.flow.looks import Looks
from webapp.flow.model import Kind, Target
from webapp.flow.reach import EVERYTHING
from webapp.infra.broker import heartbeats
from webapp.infra.postgres.literals import array_of
from webapp.infra.telemetry import metrics
from webapp.jobs.errors import QueueFull
from webapp.jobs.options import PLAIN
from webapp.jobs.states import AttemptOutcome
from webapp.jobs.submission import Submission

QUEUE = Target(Kind.QUEUE, "default")
NOOP = {"payload": {"task": "noop"}}

_WAITING = text("""
    INSERT INTO jobs (id, task, payload, queue, max_retries, timeout, fingerprint, key, run_at)
    SELECT id, 'noop', '{}', 'default', 3, 60, '\\x00', :key, now() - make_interval(secs => :over * (count(*) OVER () - n + 1) / count(*) OVER ())
      FROM unnest(CAST(:ids AS uuid[])) WITH ORDINALITY AS given(id, n)""")
_ENDED = text("""
    INSERT INTO jobs (id, task, payload, queue, max_retries, timeout, fingerprint, key, status, attempt, last_attempt_at, finished_at)
    SELECT id, 'noop', '{}', 'default', 3, 60, '\\x00', :key, 'completed', 1, now(), now() - make_interval(secs => :over * (count(*) OVER () - n) / count(*) OVER ())
      FROM unnest(CAST(:ids AS uuid[])) WITH ORDINALITY AS given(id, n)""")
_FIRST_END = text("""
    UPDATE jobs SET status = 'completed', attempt = 1, last_attempt_at = now(), finished_at = now()
     WHERE id IN (SELECT id FROM jobs_living WHERE status = 'queued' ORDER BY run_at LIMIT :count)""")


@pytest.fixture
def bound(app, engine):
    """Gives the default queue bounds, known at once to every process."""

    def give(*bounds, target=QUEUE, **named):
        with engine.begin() as connection:
            flow_store.lock(connection, target)
            flow_store.set_limits(connection, target, QueueLimits(bounds=Bounds(*bounds, **named)))
            look_store.forget(connection, target.name)
        for book in books(app):
            book.forget()

    return give


@pytest.fixture
def later(app, engine):
    """Lets time go by: the last looks are as much older, and all processes ask anew."""

    def wait(seconds=2.0):
        with engine.begin() as connection:
            connection.execute(
                text(
                    "UPDATE queue_looks SET at = at - :s, old_since = old_since - :s, full_since = full_since - :s"
                ),
                {"s": seconds},
            )
        for book in books(app):
            book.forget()

    return wait


def run(engine, statement, **values):
    with engine.begin() as connection:
        return connection.execute(statement, values)


def fill(engine, *, waiting=0, ended=0, over, key=None):
    """Jobs that came evenly in the last seconds and wait, after others that ended evenly in the same time."""
    for statement, count in ((_ENDED, ended), (_WAITING, waiting)):
        ids = array_of(uuid7() for _ in range(count))
        run(engine, statement, ids=ids, key=key, over=over)


def drain(engine, count, seconds=0.0):
    """Ends the jobs that wait longest; meanwhile the others have waited for so many seconds more."""
    run(engine, _FIRST_END, count=count)
    run(engine, text("UPDATE jobs_living SET run_at = run_at - make_interval(secs => :s)"), s=seconds)


def post(client, **more):
    return client.post("/jobs", json=NOOP | more)


def batch(client, *items):
    return client.post("/jobs/batch", json={"jobs": [NOOP | item for item in items]}).json


def stored(engine):
    return run(engine, text("SELECT count(*) FROM jobs")).scalar_one()


def within(found, true, part=0.1):
    return abs(found - true) <= part * true


def retry_after(answer, code=503):
    assert answer.status_code == code, answer.json
    return int(answer.headers["Retry-After"])


def test_a_queue_takes_no_more_than_its_depth(client, engine, bound):
    bound(max_depth=3)
    assert [post(client).status_code for _ in range(5)] == [201] * 3 + [503] * 2
    refused = post(client)
    assert refused.mimetype == "application/problem+json"
    assert (refused.json["type"], refused.json["status"]) == ("queue-full", 503)
    assert refused.json["detail"].startswith(
        "queue 'default' is full: its max_depth of 3 jobs is reached; send it again in "
    )
    assert 1 <= retry_after(refused) <= 300
    assert stored(engine) == 3


def test_what_is_there_already_counts_and_what_leaves_makes_room(client, engine, bound, later):
    fill(engine, waiting=4, over=10.0)
    bound(max_depth=4)
    assert post(client).status_code == 503
    drain(engine, 2)
    later()
    assert [post(client).status_code for _ in range(3)] == [201, 201, 503]


def test_a_queue_whose_oldest_due_job_is_too_old_takes_none(client, engine, bound, later):
    fill(engine, waiting=2, over=70.0)
    bound(max_age=60.0)
    refused = post(client)
    assert (refused.status_code, refused.json["type"]) == (503, "queue-full")
    assert "its oldest due job has waited longer than its max_age of 60 s" in refused.json["detail"]
    # The other one has waited for 35 s, which is more than half of it.
    drain(engine, 1)
    later()
    assert post(client).status_code == 503
    drain(engine, 1)
    later()
    assert post(client).status_code == 201


def test_an_age_beyond_its_bound_refuses_once_it_has_lasted(engine, bound, later):
    fill(engine, waiting=1, over=60.5)
    bound(max_age=60.0)

    def refuses():
        return Looks(engine).standing("default").look.age.refuses

    assert not refuses()
    later(2.0)
    assert not refuses()
    # Looked at again only now: what was between is not known, and the job itself has been too old for a moment.
    later(10.0)
    assert not refuses()
    later(2.0)
    assert not refuses()
    for _ in range(8):
        later(1.5)
        if refuses():
            break
    else:
        pytest.fail("it was too old for twelve seconds")


def test_a_job_for_later_is_not_old_but_takes_room(client, engine, bound):
    bound(max_depth=1, max_age=1.0)
    assert post(client, delay=600).status_code == 201
    assert (
        post(client, delay=600).json["detail"].startswith("queue 'default' is full: its max_depth of 1 jobs")
    )


def test_each_key_has_its_own_depth(client, engine, bound):
    bound(key_max_depth=2)
    assert [post(client, key="a").status_code for _ in range(3)] == [201, 201, 429]
    refused = post(client, key="a")
    assert refused.json["type"] == "key-full"
    assert refused.json["detail"].startswith(
        "key 'a' of queue 'default' is full: the keys.max_depth of 2 jobs is reached"
    )
    assert 1 <= retry_after(refused, 429) <= 300
    # Neither other keys nor jobs without one, nor another queue's jobs of this one.
    assert [post(client, key="b").status_code, *(post(client).status_code for _ in range(3))] == [201] * 4
    queued(engine, queue="other", terms=replace(PLAIN, key="b"))
    assert post(client, key="b").status_code == 201


def test_an_item_of_a_batch_is_judged_by_itself(client, engine, bound):
    bound(max_depth=6, key_max_depth=2)
    answer = batch(
        client, *({"key": key} for key in "aaab"), *({} for _ in range(4)), {"payload": "no object"}
    )
    outcomes = [item["outcome"] for item in answer["items"]]
    assert outcomes == ["created"] * 2 + ["invalid"] + ["created"] * 4 + ["invalid"] * 2
    assert (answer["created"], answer["invalid"], stored(engine)) == (6, 3, 6)
    of_key, of_queue, unknown = answer["items"][2], answer["items"][7], answer["items"][8]
    assert (of_key["reason"], of_queue["reason"], "reason" in unknown) == ("key-full", "queue-full", False)
    (error,) = of_queue["errors"]
    assert (error["field"], error["given"]) == ("queue", "default")
    assert "its max_depth of 6 jobs is reached" in error["rule"]
    assert 1 <= of_queue["retry_after"] <= 300


@pytest.mark.parametrize("how", ["single", "batch"])
def test_a_job_that_exists_answers_also_where_all_is_full(client, engine, bound, how):
    bound(max_depth=3, key_max_depth=3)
    keys = [{"idempotency_key": "k"}, {"unique": {"key": "u"}}, {"key": "c"}]
    first = [post(client, **one).json["id"] for one in keys]
    assert post(client, **keys[2]).status_code == 503
    if how == "single":
        answers = [post(client, **one) for one in keys[:2]]
        assert [(one.status_code, one.json["id"]) for one in answers] == [(200, one) for one in first[:2]]
        assert post(client, unique={"key": "u", "on_conflict": "refuse"}).status_code == 409
        assert post(client, idempotency_key="k", tags=["other"]).status_code == 422
    else:
        items = batch(client, keys[2], *keys[:2])["items"]
        assert [one["outcome"] for one in items] == ["invalid", "existing", "existing"]
        assert [one["id"] for one in items[1:]] == first[:2]
    assert stored(engine) == 3


def test_repeats_in_a_batch_take_no_room_of_those_behind_them(client, engine, bound):
    bound(max_depth=4)
    first = post(client, idempotency_key="k").json["id"]
    items = batch(
        client, {"idempotency_key": "k"}, {"idempotency_key": "n"}, {"idempotency_key": "n"}, {}, {}, {}
    )["items"]
    assert [one["outcome"] for one in items] == [
        "existing",
        "created",
        "existing",
        "created",
        "created",
        "invalid",
    ]
    assert items[0]["id"] == first
    assert items[2]["id"] == items[1]["id"]
    assert stored(engine) == 4


def test_what_is_refused_is_no_owner_of_its_key(client, engine, bound, later):
    bound(max_depth=1)
    post(client)
    assert post(client, idempotency_key="k").status_code == 503
    drain(engine, 1)
    later()
    assert post(client, idempotency_key="k").status_code == 201


def test_jobs_that_are_stored_are_refused_nothing(client, engine, bound, later):
    dead, again = dead_lettered(engine), dead_lettered(engine)
    retried = claimed(engine)
    bound(max_depth=1, max_age=1.0, key_max_depth=1)
    fill(engine, waiting=5, over=60.0)
    assert post(client).status_code == 503
    assert client.post(f"/dlq/{dead.id}/requeue").status_code == 200
    assert client.post(f"/jobs/{again.id}/retry").status_code == 200
    with engine.begin() as connection:
        assert end_again(connection, retried, AttemptOutcome.FAILED, ERROR, delay=0.0)
    client.post("/queues/default/pause")
    assert client.post("/queues/default/resume").status_code == 200
    assert {row_of(engine, one.id).status for one in (dead, again, retried)} == {"queued"}


def test_a_client_is_told_when_a_job_would_be_taken(client, engine, bound, later):
    """A hundred wait, two leave in a second, and sixty are allowed: the forty-first that leaves makes room."""
    fill(engine, waiting=100, over=30.0)
    bound(max_depth=60)
    fill(engine, ended=60, over=30.0)
    told = retry_after(post(client))
    assert within(told, 41 / 2)
    drain(engine, int(told * 0.9) * 2)
    later(told * 0.9)
    assert post(client).status_code == 503
    drain(engine, 41 - int(told * 0.9) * 2)
    later()
    assert post(client).status_code == 201


def test_a_client_is_told_when_the_oldest_job_will_be_young_enough(client, engine, bound, later):
    """Two came and six leave in a second; the oldest has waited for 100 s and shall for less than 40: those that came 70 s ago are
    40 s old in 30 s, when they are the oldest.
    """
    fill(engine, waiting=200, over=100.0)
    bound(max_age=80.0)
    fill(engine, ended=600, over=100.0)
    told = retry_after(post(client))
    assert within(told, 30.0)
    drain(engine, 27 * 6, 27.0)
    later(27.0)
    assert post(client).status_code == 503
    drain(engine, 6 * 6, 6.0)
    later(6.0)
    assert post(client).status_code == 201


def test_a_client_is_told_when_a_job_of_its_key_would_be_taken(client, engine, bound):
    fill(engine, waiting=30, ended=30, over=30.0, key="a")
    fill(engine, waiting=50, ended=300, over=30.0, key="b")
    bound(key_max_depth=10)
    assert within(retry_after(post(client, key="a"), 429), 21.0)
    assert within(retry_after(post(client, key="b"), 429), 4.1, part=0.25)


@pytest.mark.parametrize("paused", [True, False])
def test_where_nothing_leaves_a_client_comes_after_as_long_again(client, engine, bound, later, paused):
    fill(engine, waiting=10, ended=100 if paused else 0, over=20.0)
    bound(max_depth=10, key_max_depth=1)
    if paused:
        client.post("/queues/default/pause")
    assert within(retry_after(post(client)), 20.0)
    later(100.0)
    assert within(retry_after(post(client)), 100.0)
    fill(engine, waiting=1, ended=100 if paused else 0, over=50.0, key="a")
    bound(key_max_depth=1)
    assert within(retry_after(post(client, key="a"), 429), 50.0)


def test_a_queue_with_bounds_alone_has_no_lanes(client, engine, bound, redis):
    bound(max_depth=5, max_age=60.0, key_max_depth=5)
    answer = post(client, key="a")
    row = row_of(engine, answer.json["id"])
    assert row.dispatched_at is not None
    lanes = run(engine, text("SELECT lane FROM jobs UNION ALL SELECT lane FROM lane_wakeups")).scalars().all()
    assert lanes == [None]


def test_where_nothing_has_bounds_nothing_is_asked(client, engine, service, bound):
    bound(max_depth=1, target=Target(Kind.QUEUE, "other"))
    assert post(client).status_code == 201
    assert batch(client, {}, {})["created"] == 2
    assert service.admission.looks.are_none
    assert run(engine, text("SELECT count(*) FROM queue_looks")).scalar_one() == 0


def test_a_queue_that_has_no_bounds_any_more_is_forgotten(engine, bound):
    clock = SettableClock()
    looks = Looks(engine, clock)
    bound(max_depth=5)
    assert looks.standing("default").room == 5
    looks.note("default", 2)
    assert looks.standing("default").room == 3
    clock.advance(45.0)
    looks.note("default", 1)
    assert not looks.are_none
    clock.advance(30.0)
    looks.note("default", 1)
    assert looks.are_none


def test_what_was_found_outlives_processes_and_redis(client, engine, bound, redis, broker):
    fill(engine, waiting=3, over=10.0)
    bound(max_depth=3)
    assert post(client).status_code == 503
    # As if that had taken long, it is gone by for as long as this test lasts.
    looked = run(engine, text("UPDATE queue_looks SET took = 60 RETURNING at")).scalar_one()
    redis.flushall()
    with pytest.raises(QueueFull):
        service_over(engine, broker).submit(Submission({"task": "noop"}), EVERYTHING)
    # Another process goes by the same look.
    assert run(engine, text("SELECT at FROM queue_looks")).scalar_one() == looked


def test_several_processes_share_a_look(engine, bound):
    fill(engine, waiting=100, over=10.0)
    bound(max_depth=200)
    with ThreadPoolExecutor(6) as pool:
        standings = list(pool.map(lambda _: Looks(engine).standing("default"), range(6)))
    # One that has waited too long for another's look goes without.
    assert len({standing.look.at for standing in standings if standing.look is not None}) == 1


def test_several_processes_go_beyond_a_depth_by_what_comes_in_a_second(engine, bound, broker, app):
    bound(max_depth=50)
    services = [service_over(engine, broker) for _ in range(2)]

    def submit(number):
        try:
            services[number % 2].submit(Submission({"task": "noop"}), EVERYTHING)
        except QueueFull:
            return 0
        return 1

    with ThreadPoolExecutor(4) as pool:
        taken = sum(pool.map(submit, range(300)))
    assert taken == stored(engine)
    # Each process knows its own, and of the other what was there at the last look.
    assert 50 <= taken <= 50 * 2 + 4
    for one in services:
        one.admission.looks.forget()
    run(engine, text("UPDATE queue_looks SET at = at - 2"))
    assert sum(submit(number) for number in range(4)) == 0


def test_a_queue_that_cannot_be_looked_at_takes_jobs(client, engine, bound, caplog):
    bound(max_depth=1)
    run(engine, text("INSERT INTO queue_looks (queue) VALUES ('default')"))
    with engine.begin() as connection:
        connection.execute(text("SELECT FROM queue_looks FOR UPDATE"))
        assert [post(client).status_code for _ in range(2)] == [201, 201]
    assert "a queue could not be looked at" in caplog.text


def test_what_is_refused_is_counted(client, engine, bound):
    def counted(reason):
        return metrics.submissions_refused.labels("default", reason)._value.get()

    before = {reason: counted(reason) for reason in ("max_depth", "key_max_depth")}
    bound(max_depth=2, key_max_depth=1)
    post(client, key="a")
    post(client, key="a")
    batch(client, {}, {}, {})
    assert {reason: counted(reason) - count for reason, count in before.items()} == {
        "max_depth": 2,
        "key_max_depth": 1,
    }
    page = client.get("/metrics").text
    assert 'job_submissions_refused_total{queue="default",reason="max_depth"}' in page


@pytest.fixture
def at_once(monkeypatch):
    """Changes do not wait until other processes know of them: here there are none."""
    monkeypatch.setattr("webapp.flow.service.LONGEST_AGE", 0.0)
    monkeypatch.setattr("webapp.flow.service.ON_ITS_WAY", 0.0)


@pytest.mark.usefixtures("at_once")
def test_bounds_are_given_shown_recorded_and_taken_away(client, engine, app):
    wanted = {"max_depth": 2, "max_age": 300.0, "keys": {"max_depth": 1}}
    answer = client.put("/queues/default", json=wanted | {"by": "ada", "why": "a storm"})
    limits = answer.json["limits"]
    assert (limits["max_depth"], limits["max_age"], limits["keys"]["max_depth"]) == (2, 300.0, 1)
    assert client.get("/queues/default").json["limits"] == limits
    assert client.get("/queues").json["items"][0]["limits"] == limits
    change = client.get("/flow/changes").json["items"][0]
    assert (change["who"], change["why"], change["old"]["max_depth"], change["new"]["max_depth"]) == (
        *("ada", "a storm"),
        *(None, 2),
    )
    assert [post(client).status_code for _ in range(3)] == [201, 201, 503]
    assert client.put("/queues/default", json={}, headers={"If-Match": '"0"'}).status_code == 412
    # A bound that is raised lets in what the one before has refused, whatever was found by it.
    client.put("/queues/default", json={"max_depth": 4})
    app.extensions["jobs"].admission.looks.forget()
    assert [post(client).status_code for _ in range(3)] == [201, 201, 503]
    client.delete("/queues/default")
    assert post(client).status_code == 201
    assert run(engine, text("SELECT is_limited OR has_lanes FROM queues")).scalar_one() is False


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"max_depth": 0}, "max_depth"),
        ({"max_age": "60"}, "max_age"),
        ({"keys": {"max_depth": -1}}, "keys.max_depth"),
    ],
)
def test_a_bound_that_breaks_a_rule_is_named(client, body, field):
    answer = client.put("/queues/default", json=body)
    assert (answer.status_code, answer.json["errors"][0]["field"]) == (422, field)
    assert client.put("/tasks/noop", json={"max_depth": 1}).status_code == 422


@pytest.mark.usefixtures("at_once")
def test_bounds_on_the_command_line(flask, client, tmp_path):
    words = (
        "queues",
        "set",
        "default",
        "--max-depth",
        "100",
        "--max-age",
        "60",
        "--key-max-depth",
        "5",
        "--json",
    )
    said = flask(*words)
    assert said.exit_code == 0, said.output
    limits = json.loads(said.stdout)["limits"]
    assert (limits["max_depth"], limits["max_age"], limits["keys"]["max_depth"]) == (100, 60.0, 5)
    assert flask("queues", "set", "default", "--max-depth", "0").exit_code == 2
    file = tmp_path / "limits.toml"
    file.write_text("[queues.default]\nmax_depth = 7\nkeys = {max_depth = 3}\n")
    assert flask("queues", "apply", file).stdout.splitlines()[-1] == "1 were changed"
    shown = client.get("/queues/default").json["limits"]
    assert (shown["max_depth"], shown["max_age"], shown["keys"]["max_depth"]) == (7, None, 3)
    assert flask("queues", "apply", file).stdout.splitlines()[-1] == "0 were changed"


@pytest.mark.usefixtures("at_once")
def test_a_worker_of_an_older_release_is_no_reason_to_refuse_a_bound(client, redis):
    """It judges no submissions; what holds its jobs back is refused."""
    described = {"role": "worker", "queues": ["default"], "children": 2, "running": 0, "busy": 0, "idle": 0.0}
    heartbeats.beat(redis, "old:1:x", 60, json.dumps(described))
    assert client.put("/queues/default", json={"max_depth": 5}).status_code == 200
    assert client.put("/queues/default", json={"max_depth": 5, "fair": True}).status_code == 409


_EXPLAINED = {
    "depth": {"most": 5_000},
    "oldest": {"most": 5_000},
    "ends": {"recent": 30.0, "long_ago": 300.0, "most": 5_000},
    "surplus": {"most": 5_000, "drain": 1.0, "clears": 30.0},
    "key_surplus": {"key": "a", "most": 50},
    "key_ends": {"key": "a", "recent": 30.0, "long_ago": 300.0, "most": 50},
}


@pytest.mark.parametrize("name", _EXPLAINED)
def test_a_look_reads_indexes(engine, name):
    fill(engine, waiting=3_000, ended=3_000, over=300.0)
    with engine.begin() as connection:
        look_store.set_bounds(connection)
        statement = look_store.read_sql(look_store.__file__, "looks", name)
        plan = connection.execute(
            text(f"EXPLAIN (FORMAT JSON) {statement}"), {"queue": "default"} | _EXPLAINED[name]
        ).scalar_one()
    shown = json.dumps(plan)
    assert '"Seq Scan"' not in shown
    assert name != "depth" or shown.count("Index Only Scan") == 2, shown


def test_keys_are_counted_by_their_index(engine):
    fill(engine, waiting=3_000, over=300.0, key="a")
    with engine.begin() as connection:
        look_store.set_bounds(connection)
        plan = connection.execute(
            text(f"EXPLAIN {look_store.read_sql(look_store.__file__, 'looks', 'key_depths')}"),
            {"queues": "{default}", "keys": "{a}", "mosts": "{10}"},
        )
        assert "Index Only Scan using jobs_key_waiting" in "\n".join(plan.scalars())


def test_nothing_else_is_changed_by_a_refusal(client, engine, bound):
    fill(engine, waiting=2, over=10.0)
    bound(max_depth=2)
    before = tables(engine)
    assert post(client).status_code == 503
    assert tables(engine) == before
