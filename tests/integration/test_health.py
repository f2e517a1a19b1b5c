from __future__ import annotations

import time

import pytest

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
