"""Keys that may use so much and no more: jobs, requests, waiters, bodies."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis

from webapp.access.quotas import Quotas
from webapp.access.windows import WINDOW, Verdict, Windows, decided
from webapp.infra.broker import redis_keys

ACL = Path(__file__).resolve().parents[2] / "ops" / "docker" / "redis" / "users.acl"

JOB = {"payload": {"task": "noop"}}


@pytest.fixture
def key(flask, app):
    """Makes a key with quotas; gives what a request of its owner is sent with."""

    def make(*words, scopes=("jobs:submit", "jobs:read"), days=365):
        asked = [word for scope in scopes for word in ("--scope", scope)]
        asked += [word for quota in words for word in ("--quota", quota)]
        result = flask("access", "key", "create", "shop", *asked, "--days", str(days), "--json")
        assert result.exit_code == 0, result.output
        issued = json.loads(result.stdout)
        app.extensions["doorkeeper"].book.forget()
        return issued["id"], {"Authorization": f"Bearer {issued['secret']}"}

    return make


def refused(answer, quota, limit, used):
    """Checks an answer to one who has used up a quota; returns when they should come again."""
    assert answer.status_code == 429, answer.text
    problem = answer.json
    assert (problem["type"], problem["quota"], problem["limit"], problem["used"]) == (
        "quota",
        quota,
        limit,
        used,
    )
    return int(answer.headers["Retry-After"])


def batch(client, headers, size):
    return client.post("/jobs/batch", json={"jobs": [JOB] * size}, headers=headers)


def test_a_batch_counts_as_its_jobs(client, key, engine):
    _, headers = key("submit_per_minute=60")
    assert [batch(client, headers, 7).status_code for _ in range(8)] == [200] * 8
    assert 1 <= refused(batch(client, headers, 7), "submit_per_minute", 60, 56) <= WINDOW + 1
    assert [client.post("/jobs", json=JOB, headers=headers).status_code for _ in range(4)] == [201] * 4
    refused(client.post("/jobs", json=JOB, headers=headers), "submit_per_minute", 60, 60)
    assert client.get("/jobs?limit=1", headers=headers).json["total"] == 60


def test_a_batch_that_can_never_be_taken_is_told_so(client, key):
    _, headers = key("submit_per_minute=60")
    answer = batch(client, headers, 61)
    assert answer.status_code == 429
    assert "Retry-After" not in answer.headers
    assert "this alone is more" in answer.json["detail"]
    assert batch(client, headers, 60).status_code == 200


def test_requests_that_read_are_counted_and_others_are_not(client, key):
    _, headers = key("read_per_minute=3")
    assert client.post("/jobs", json=JOB, headers=headers).status_code == 201
    paths = ("/jobs", "/queues", "/access/me")
    assert [client.get(path, headers=headers).status_code for path in paths] == [200, 403, 200]
    assert client.get("/jobs", headers=headers).status_code == 200
    refused(client.get("/jobs", headers=headers), "read_per_minute", 3, 3)
    assert client.post("/jobs", json=JOB, headers=headers).status_code == 201
    # What is public is for all.
    assert client.get("/health", headers=headers).status_code == 200


def test_a_body_may_be_so_large(client, key):
    _, headers = key("max_payload_bytes=100")
    large = {"payload": {"task": "noop", "more": "x" * 100}}
    assert client.post("/jobs", json=JOB, headers=headers).status_code == 201
    answer = client.post("/jobs", json=large, headers=headers)
    assert (answer.status_code, "at most 100 bytes" in answer.json["detail"]) == (413, True)
    answers = client.post("/jobs/batch", json={"jobs": [JOB, large]}, headers=headers).json["items"]
    assert [one["outcome"] for one in answers] == ["created", "invalid"]
    assert client.post("/jobs", json=large).status_code == 201


def test_so_many_requests_wait_at_once(client, key, eventually):
    _, headers = key("max_waiters=2")
    job = client.post("/jobs", json=JOB | {"delay": 600}, headers=headers).json["id"]
    answers = []

    def wait():
        answers.append(
            client.application.test_client().get(f"/jobs/{job}?wait=30", headers=headers).status_code
        )

    threads = [threading.Thread(target=wait) for _ in range(2)]
    for thread in threads:
        thread.start()
    waiting = client.application.extensions["usage"]._waiting
    eventually(lambda: sum(waiting.values()) == 2)
    assert refused(client.get(f"/jobs/{job}?wait=30", headers=headers), "max_waiters", 2, 2) == 1
    assert client.get(f"/jobs/{job}/events", headers=headers).status_code == 429
    # Others wait all the same.
    assert client.get(f"/jobs/{job}?wait=0.1").status_code == 200
    client.post(f"/jobs/{job}/cancel", json={})
    for thread in threads:
        thread.join(10)
    assert answers == [200, 200]
    assert waiting == {}
    with client.get(f"/jobs/{job}/events", headers=headers) as answer:
        assert answer.status_code == 200


def test_two_keys_do_not_share_and_one_without_quotas_has_none(client, key):
    (_, one), (_, other), (_, free) = key("submit_per_minute=1"), key("submit_per_minute=1"), key()
    codes = [client.post("/jobs", json=JOB, headers=headers).status_code for headers in (one, one, other)]
    assert codes == [201, 429, 201]
    assert [client.post("/jobs", json=JOB, headers=free).status_code for _ in range(3)] == [201] * 3


def test_quotas_are_changed_and_the_change_is_on_record(client, key, flask, eventually):
    number, headers = key("submit_per_minute=1")
    assert client.post("/jobs", json=JOB, headers=headers).status_code == 201
    refused(client.post("/jobs", json=JOB, headers=headers), "submit_per_minute", 1, 1)
    changed = json.loads(
        flask("access", "key", "quotas", str(number), "submit_per_minute=9", "--json").stdout
    )
    # Waiting jobs are bounded for a tenant alone.
    assert changed["quotas"] | {"max_queued": None} == Quotas(submit_per_minute=9)._asdict()
    eventually(lambda: client.get("/access/me", headers=headers).json["quotas"] == changed["quotas"])
    assert client.post("/jobs", json=JOB, headers=headers).status_code == 201
    assert json.loads(flask("access", "key", "quotas", str(number), "--json").stdout)["quotas"] is None
    (last, before) = client.get(f"/audit?event=key.quotas&target=key:{number}").json["items"][:2]
    assert last["details"]["old"] == {"submit_per_minute": 9}
    assert (before["details"]["old"], before["details"]["new"]) == (
        {"submit_per_minute": 1},
        {"submit_per_minute": 9},
    )


def test_a_key_changes_those_of_others_over_http_and_gives_no_more_than_its_own(client, key, flask):
    _, admin = key("submit_per_minute=100", scopes=("access:manage", "jobs:submit"))
    number, _ = key(scopes=("jobs:submit",), days=30)

    def put(body):
        return client.put(f"/access/keys/{number}/quotas", json=body, headers=admin)

    assert put({"submit_per_minute": 100}).json["quotas"]["submit_per_minute"] == 100
    answer = put({"submit_per_minute": 101})
    assert (answer.status_code, "submit_per_minute above 100" in answer.json["detail"]) == (403, True)
    assert put({}).status_code == 403
    answer = put({"submit_per_minute": 0})
    assert (answer.status_code, answer.json["errors"][0]["field"]) == (422, "submit_per_minute")
    assert client.put("/access/keys/999/quotas", json={}, headers=admin).status_code == 404


@pytest.mark.parametrize("words", ["submit_per_minute", "submit_per_minute=x", "jobs=1", "max_waiters=-1"])
def test_what_is_no_quota_is_refused_with_its_rule(flask, words):
    result = flask("access", "key", "create", "shop", "--role", "viewer", "--quota", words)
    assert result.exit_code == 2
    assert f"(given: '{words}')" in result.output


@pytest.fixture
def windows(redis):
    return Windows(redis)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.tuples(st.integers(0, 40), st.integers(1, 30)), min_size=1, max_size=25))
def test_redis_decides_as_the_rule_says(windows, redis, steps):
    redis.delete(redis_keys.key(f"{redis_keys.LIMITS}:x"))
    spent, now = {}, 1_000_000
    for later, cost in steps:
        now += later
        expected = decided(spent, now, cost, 40)
        assert windows.spend("x", cost, 40, now=now) == expected
        if expected.is_taken:
            spent[now] = spent.get(now, 0) + cost


@pytest.mark.parametrize("poison", ["string", "list", "fields"])
def test_what_others_write_into_a_window_is_not_believed(windows, redis, poison):
    name = redis_keys.key(f"{redis_keys.LIMITS}:x")
    if poison == "string":
        redis.set(name, "x")
    elif poison == "list":
        redis.rpush(name, "x")
    else:
        redis.hset(name, mapping={"x": 1, "99999999999999": 60, "5": "x", str(int(time.time())): -10})
    assert windows.spend("x", 60, 60) == Verdict(60, 0)
    assert 0 < redis.ttl(name) <= WINDOW + 1


def test_a_redis_user_with_djps_rights_alone_may_count(redis):
    """The file of `ops/docker/redis` is older than quotas; what it does not allow, an installation that is upgraded lacks."""
    (line,) = [one for one in ACL.read_text().splitlines() if one.startswith("user djps ")]
    rules = line.removeprefix("user djps ").split()
    redis.execute_command("ACL", "SETUSER", "quota-test", *rules)
    try:
        with Redis.from_url(os.environ["REDIS_URL"], username="quota-test", password="change-me") as guarded:
            windows = Windows(guarded)
            assert [windows._asked("x", 30, 60, None).used for _ in range(3)] == [30, 60, 60]
    finally:
        redis.execute_command("ACL", "DELUSER", "quota-test")


def test_processes_share_what_they_count(redis):
    one, other = Windows(redis), Windows(redis)
    together = [which.spend("x", 1, 50).is_taken for _ in range(40) for which in (one, other)]
    assert sum(together) == 50


def test_what_was_refused_is_refused_again_without_asking_until_it_may_be_taken(redis):
    seconds = [1_000_000.0]
    windows, asked = Windows(redis, lambda: seconds[0]), Windows(redis)
    assert windows.spend("x", 50, 50).is_taken
    assert windows.spend("x", 1, 50).wait in {60, 61}
    redis.delete(redis_keys.key(f"{redis_keys.LIMITS}:x"))
    assert windows.spend("x", 2, 50).used == 50
    # Another limit, and another process, are not concerned.
    assert windows.spend("x", 60, 60).is_taken
    assert not asked.spend("x", 1, 60).is_taken
    seconds[0] += 61
    redis.delete(redis_keys.key(f"{redis_keys.LIMITS}:x"))
    assert windows.spend("x", 1, 60).is_taken
