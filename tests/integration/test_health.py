from __future__ import annotations

import subprocess
import time

import pytest
from sqlalchemy.engine import make_url

from ops.stack import ports, valkey


@pytest.fixture
def replica(settings, tmp_path):
    """A read-only replica of the tests' Valkey."""
    port = ports.free()
    command = [*valkey.command(tmp_path, port, durable=False)]
    command += ["--replicaof", ports.LOOPBACK, str(make_url(settings.redis_url).port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    valkey.wait(port)
    yield port
    server.terminate()
    server.wait(10)


def test_a_redis_that_takes_no_writes_is_named(another_app, replica, redis):
    """A replica answers a ping as well; hints cannot be sent through it."""
    client = another_app(redis_url=f"redis://127.0.0.1:{replica}/0").test_client()
    answer = client.get("/health/ready")
    assert (answer.status_code, answer.json["status"]) == (200, "degraded")
    assert answer.json["dependencies"] == {"postgresql": "ok", "redis": "read-only"}
    assert client.post("/jobs", json={"payload": {"task": "noop"}}).status_code == 201


def test_a_full_redis_is_named(client, redis):
    redis.config_set("maxmemory", 1)
    try:
        answer = client.get("/health/ready")
    finally:
        redis.config_set("maxmemory", 0)
    assert (answer.status_code, answer.json["status"]) == (200, "degraded")
    assert answer.json["dependencies"]["redis"].startswith("takes no writes")


AWAY = ["closed_port", "silent_port"]


def test_a_process_that_answers_is_alive(client):
    answer = client.get("/health")
    assert (answer.status_code, answer.json) == (200, {"status": "ok"})


def test_with_both_servers_there_jobs_are_taken_and_run(client):
    answer = client.get("/health/ready")
    assert answer.status_code == 200
    assert answer.json == {"status": "ok", "dependencies": {"postgresql": "ok", "redis": "ok"}}


@pytest.mark.parametrize("port", AWAY)
def test_without_redis_jobs_are_taken_all_the_same(another_app, request, port):
    url = f"redis://:sesame@127.0.0.1:{request.getfixturevalue(port)}/0"
    client = another_app(redis_url=url).test_client()
    started = time.monotonic()
    answer = client.get("/health/ready")
    assert time.monotonic() - started < 1.5
    assert (answer.status_code, answer.json["status"]) == (200, "degraded")
    assert answer.json["dependencies"]["postgresql"] == "ok"
    assert answer.json["dependencies"]["redis"].startswith("not answering")
    assert "sesame" not in answer.text
    assert client.post("/jobs", json={"payload": {"task": "noop"}}).status_code == 201


@pytest.mark.parametrize("port", AWAY)
def test_without_the_database_no_job_is_taken(another_app, request, port):
    url = f"postgresql://djps:sesame@127.0.0.1:{request.getfixturevalue(port)}/djps"
    client = another_app(database_url=url).test_client()
    started = time.monotonic()
    answer = client.get("/health/ready")
    assert time.monotonic() - started < 5
    assert (answer.status_code, answer.json["status"]) == (503, "unavailable")
    assert answer.json["dependencies"]["redis"] == "ok"
    assert answer.json["dependencies"]["postgresql"].startswith("not answering")
    assert "sesame" not in answer.text
    assert client.get("/health").status_code == 200
