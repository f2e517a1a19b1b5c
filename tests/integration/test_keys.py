"""Single keys of a queue: their own limits, shares and pauses, over HTTP and in the claims."""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import replace
from urllib.parse import quote

import pytest
from factories import books, queued
from sqlalchemy import text

from webapp.flow import lanes
from webapp.flow.model import lane_of
from webapp.infra.broker import heartbeats
from webapp.infra.broker.hints import Ticket
from webapp.jobs.options import PLAIN
from webapp.queues import tickets
from webapp.queues.tickets import ClaimTerms


@pytest.fixture
def at_once(monkeypatch):
    """Changes do not wait until other processes know of them: here there are none."""
    monkeypatch.setattr("webapp.flow.service.LONGEST_AGE", 0.0)
    monkeypatch.setattr("webapp.flow.service.ON_ITS_WAY", 0.0)


@pytest.fixture
def keep(client, at_once):
    """Gives a key limits of its own."""

    def put(key, **body):
        answer = client.put(f"/queues/default/keys/{quote(key, safe='')}", json=body)
        assert answer.status_code == 200, answer.text
        return answer

    return put


def in_lane(engine, count=1, *, key=None):
    terms = replace(PLAIN, key=key)
    return [queued(engine, lane=lane_of("default", key), terms=terms) for _ in range(count)]


def take(engine, limit=1, *, worker="w/1"):
    with engine.begin() as connection:
        terms = ClaimTerms(limit, worker, 60.0)
        return tickets.claim_due(connection, Ticket("default", "noop", 300.0), terms, in_lanes=True)


def keys_of(engine, claims):
    with engine.connect() as connection:
        ids = [claim.id for claim in claims]
        return Counter(
            connection.execute(text("SELECT key FROM jobs WHERE id = ANY(:ids)"), {"ids": ids}).scalars()
        )


def test_a_key_is_put_shown_listed_put_on_record_and_forgotten(client, keep):
    like_all = {
        "queue": "default", "key": "a/b", "paused": False, "paused_at": None, "paused_by": None,
        "paused_why": None, "concurrency": None, "rate": None, "weight": 1.0, "version": 0,
    }  # fmt: skip
    shown = client.get("/queues/default/keys/a%2Fb")
    assert shown.json == like_all | {"waiting": 0, "running": 0}
    put = keep("a/b", concurrency=2, weight=3, by="ada", why="they pay")
    own = like_all | {"concurrency": 2, "weight": 3.0, "version": 1}
    assert (put.json, put.headers["ETag"]) == (own, '"1"')
    assert client.get("/queues/default/keys").json == {"items": [own], "next_cursor": None}
    assert keep("a/b", concurrency=2, weight=3).json["version"] == 1
    stale = client.put("/queues/default/keys/a%2Fb", json={}, headers={"If-Match": '"7"'})
    assert stale.status_code == 412
    assert "key 'a/b' of queue 'default'" in stale.json["detail"]
    (change,) = client.get("/flow/changes?target=queues/default/keys/a/b").json["items"]
    assert (change["who"], change["why"]) == ("ada", "they pay")
    assert change["old"] == {"paused": False, "concurrency": None, "rate": None, "weight": 1.0}
    gone = client.delete("/queues/default/keys/a%2Fb", headers={"If-Match": '"1"'})
    assert gone.json == like_all
    assert client.get("/queues/default/keys").json["items"] == []


def test_keys_are_listed_a_page_at_a_time(client, keep):
    for key in "cab":
        keep(key, weight=2)
    first = client.get("/queues/default/keys?limit=2").json
    assert ([one["key"] for one in first["items"]], first["next_cursor"]) == (["a", "b"], "b")
    rest = client.get("/queues/default/keys?limit=2&cursor=b").json
    assert ([one["key"] for one in rest["items"]], rest["next_cursor"]) == (["c"], None)


@pytest.mark.parametrize(
    ("path", "body", "refusal"),
    [
        ("/queues/nowhere/keys/a", {}, (404, [])),
        (f"/queues/default/keys/{'x' * 201}", {}, (422, ["key"])),
        ("/queues/default/keys/a", {"weight": 0}, (422, ["weight"])),
        ("/queues/default/keys/a", {"weight": 101}, (422, ["weight"])),
        ("/queues/default/keys/a", {"concurrency": 0}, (422, ["concurrency"])),
        ("/queues/default/keys/a", {"rate": {"limit": 0}}, (422, ["rate.limit"])),
        ("/queues/default/keys/a", {"rate": {"limit": 1, "burst": 2}}, (422, ["rate.burst"])),
        ("/queues/default/keys/a", {"rate": 5}, (422, ["rate"])),
    ],
)
def test_what_breaks_a_rule_is_refused(client, engine, path, body, refusal):
    answer = client.put(path, json=body)
    assert (answer.status_code, [one["field"] for one in answer.json.get("errors", [])]) == refusal
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM key_limits")).scalar_one() == 0


def test_a_keys_own_concurrency_goes_before_that_of_all_keys(client, engine, keep):
    assert client.put("/queues/default", json={"keys": {"concurrency": 1}}).status_code == 200
    keep("large", concurrency=2)
    in_lane(engine, 3, key="large")
    in_lane(engine, 3, key="small")
    taken = [claim for number in range(6) for claim in take(engine, worker=f"w/{number}")]
    assert keys_of(engine, taken) == {"large": 2, "small": 1}
    figures = client.get("/queues/default/keys/large").json
    assert (figures["waiting"], figures["running"]) == (1, 2)


HOURLY = {"limit": 1, "per": 3_600}


def test_a_key_has_a_rate_of_its_own(engine, keep):
    shown = keep("slow", rate=HOURLY).json
    assert shown["rate"] == {"limit": 1, "per": 3_600.0, "burst": 1}
    in_lane(engine, 3, key="slow")
    in_lane(engine, 3, key="free")
    assert keys_of(engine, take(engine, 10)) == {"slow": 1, "free": 3}
    assert take(engine, 10) == []
    with engine.connect() as connection:
        states = connection.execute(text("SELECT key, state FROM lanes ORDER BY key")).all()
    assert [tuple(row) for row in states] == [("free", "idle"), ("slow", "timed")]
    # That it has none any more holds for what waited for its rate.
    keep("slow", weight=2)
    assert keys_of(engine, take(engine, 10)) == {"slow": 2}


def test_a_keys_own_rate_goes_before_that_of_all_keys_also_for_lanes_that_are_known(client, engine, keep):
    keys = {"rate": {"limit": 10, "per": 3_600, "burst": 1}}
    assert client.put("/queues/default", json={"keys": keys}).status_code == 200
    for key in ("large", "small"):
        in_lane(engine, 4, key=key)
    with engine.begin() as connection:
        lanes.call(connection, "default")
    keep("large", rate={"limit": 20, "per": 3_600, "burst": 3})
    assert keys_of(engine, take(engine, 10)) == {"large": 3, "small": 1}
    # The next ones are due after a twentieth and a tenth of the hour, less what is not forfeited: a fortieth.
    with engine.connect() as connection:
        waits = connection.execute(
            text("SELECT key, extract(epoch FROM ready_at - now())::float8 FROM lanes WHERE state = 'timed'")
        ).all()
    due = {row[0]: row[1] for row in waits}
    assert 60 < due["large"] <= 90
    assert 240 < due["small"] <= 270
    client.delete("/queues/default/keys/large")
    assert take(engine, 10) == []


def test_a_keys_rate_is_one_over_all_tasks_and_lets_start_when_it_is_due(engine, keep):
    keep("slow", rate=HOURLY)
    in_lane(engine, 2, key="slow")
    assert len(take(engine, 10)) == 1
    with engine.begin() as connection:
        connection.execute(text("UPDATE lane_rates SET next_start = next_start - 3600"))
        connection.execute(text("UPDATE lanes SET ready_at = ready_at - interval '1 hour'"))
    assert len(take(engine, 10)) == 1
    other = queued(engine, lane=lane_of("default", "slow"), terms=replace(PLAIN, key="slow"), task="sleep")
    with engine.begin() as connection:
        terms = ClaimTerms(1, "w/2", 60.0)
        assert tickets.claim_due(connection, Ticket("default", "sleep", 300.0), terms, in_lanes=True) == []
    assert other.attempt == 0


def test_a_weight_counts_for_what_waits_already(engine, keep):
    keep("light")
    in_lane(engine, 40, key="light")
    in_lane(engine, 40, key="heavy")
    assert keys_of(engine, take(engine, 10)) == {"light": 5, "heavy": 5}
    keep("heavy", weight=3)
    taken = [claim for _ in range(20) for claim in take(engine)]
    assert keys_of(engine, taken)["heavy"] in {14, 15, 16}


def test_of_a_paused_key_nothing_starts_until_it_is_not(engine, client, keep):
    in_lane(engine, 2, key="loops")
    in_lane(engine, 2, key="good")
    paused = keep("loops", paused=True, by="ada", why="their import loops").json
    assert (paused["paused"], paused["paused_by"], paused["paused_why"]) == (
        True,
        "ada",
        "their import loops",
    )
    assert paused["paused_at"] is not None
    in_lane(engine, 1, key="loops")
    assert keys_of(engine, take(engine, 10)) == {"good": 2}
    assert take(engine, 10) == []
    assert keep("loops", paused=True, weight=2, why="again").json["paused_why"] == "their import loops"
    keep("loops", weight=2)
    assert keys_of(engine, take(engine, 10)) == {"loops": 3}


def test_a_key_with_limits_has_its_queue_take_turns_and_without_them_jobs_leave(
    app, client, engine, keep, dispatcher
):
    row = queued(engine, terms=replace(PLAIN, key="a"))
    keep("a", concurrency=1)
    answer = client.post("/jobs", json={"payload": {"task": "noop"}, "key": "b"})
    lanes = "SELECT lane FROM jobs ORDER BY id"
    for book in books(app):
        book.forget()
    dispatcher.dispatch("default", buffer=100, redispatch_after=60.0)
    with engine.connect() as connection:
        assert connection.execute(text(lanes)).scalars().all() == [
            lane_of("default", "a"),
            lane_of("default", "b"),
        ]
    # That its queue has no limits of its own does not set the key free.
    client.delete("/queues/default")
    with engine.connect() as connection:
        assert connection.execute(text("SELECT is_limited FROM queues")).scalar_one() is True
    client.delete("/queues/default/keys/a")
    for book in books(app):
        book.forget()
    dispatcher._book.forget()
    dispatcher.dispatch("default", buffer=100, redispatch_after=60.0)
    with engine.connect() as connection:
        assert connection.execute(text(lanes)).scalars().all() == [None, None]
    assert {str(row.id), answer.json["id"]} == {one["id"] for one in client.get("/jobs").json["items"]}


def test_an_answer_waits_until_a_chunk_that_was_claimed_before_has_begun(client):
    began = time.monotonic()
    assert client.put("/queues/default/keys/a", json={"paused": True}).status_code == 200
    assert time.monotonic() - began >= 1.0


@pytest.mark.parametrize("path", ["/queues/default", "/tasks/noop", "/queues/default/keys/a"])
@pytest.mark.usefixtures("at_once")
def test_while_a_worker_of_an_older_release_is_alive_no_limit_is_set(client, engine, redis, path):
    body = {"concurrency": 1}
    described = {"role": "worker", "queues": ["default"], "children": 2, "running": 0, "busy": 0, "idle": 0.0}
    heartbeats.beat(redis, "old:1:x", 60, json.dumps(described))
    answer = client.put(path, json=body)
    assert (answer.status_code, "restart old:1:x" in answer.json["detail"]) == (409, True)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM flow_changes")).scalar_one() == 0
    # What runs no jobs is in no one's way, nor is one of this release.
    heartbeats.beat(redis, "old:1:x", 60, json.dumps(described | {"children": 0}))
    heartbeats.beat(redis, "new:1:x", 60, json.dumps(described | {"knows": ["limits"]}))
    assert client.put(path, json=body).status_code == 200
    # Limits are taken away whatever is alive.
    heartbeats.beat(redis, "old:1:x", 60, json.dumps(described))
    assert client.delete(path).status_code == 200


def test_while_redis_does_not_say_who_is_alive_no_limit_is_set(another_app, closed_port):
    client = another_app(redis_url=f"redis://127.0.0.1:{closed_port}/0").test_client()
    answer = client.put("/queues/default", json={"concurrency": 1})
    assert answer.status_code == 503
    assert answer.headers["Retry-After"]
    assert "which workers are alive" in answer.json["detail"]
