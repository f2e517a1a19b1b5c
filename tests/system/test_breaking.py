"""What dies, and that its jobs do not: workers, children, Redis, and the orderly ends."""

from __future__ import annotations

import os
import signal
import threading
import time

import psycopg2
import pytest
import requests
from sqlalchemy.engine import make_url

from ops.stack import valkey

pytestmark = pytest.mark.system


def test_a_child_that_is_killed_has_its_job_run_again_at_once(fleet):
    job = fleet.post("sleep", seconds=1.5)
    began = time.monotonic()
    os.kill(fleet.child_running(job), signal.SIGKILL)
    assert fleet.wait_for(job)["status"] == "completed"
    assert time.monotonic() - began < 8
    assert fleet.attempts(job) == [(1, "lost"), (2, "completed")]


def test_a_worker_that_is_killed_has_its_jobs_run_again(fleet, eventually):
    job = fleet.post("sleep", seconds=2)
    fleet.wait_for(job, "processing")
    fleet.stop("worker", signal.SIGKILL)
    fleet.start("worker")
    assert fleet.wait_for(job)["status"] == "completed"
    assert fleet.attempts(job) == [(1, "lost"), (2, "completed")]
    eventually(lambda: fleet.live_workers() == 2)


def test_a_poison_job_ends_in_the_dead_letter_queue_and_others_go_on(fleet):
    poison = fleet.post("poison")
    others = [fleet.post("noop") for _ in range(20)]
    assert fleet.wait_for(poison)["status"] == "failed"
    assert fleet.attempts(poison) == [(1, "lost"), (2, "lost")]
    assert all(fleet.wait_for(job)["status"] == "completed" for job in others)


def test_a_worker_told_to_end_finishes_what_it_can_and_releases_the_rest(fleet, eventually):
    quick, slow = fleet.post("sleep", seconds=1), fleet.post("sleep", seconds=9)
    fleet.wait_for(quick, "processing")
    fleet.wait_for(slow, "processing")
    took = fleet.stop("worker")
    assert took < 8
    assert fleet.job(quick["id"])["status"] == "completed"
    released = fleet.job(slow["id"])
    assert (released["status"], released["attempt"], released["retry_count"]) == ("queued", 1, 0)
    assert fleet.attempts(slow) == [(1, "released")]
    eventually(lambda: fleet.live_workers() == 1)
    fleet.start("worker")
    assert fleet.wait_for(slow)["attempt"] == 2
    eventually(lambda: fleet.live_workers() == 2)


def test_gunicorn_told_to_end_finishes_its_requests(fleet, eventually):
    plain = make_url(fleet.database_url).set(drivername="postgresql").render_as_string(hide_password=False)
    blocker = psycopg2.connect(plain)
    answers = []
    with blocker.cursor() as cursor:
        cursor.execute("LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE")
        body = {"payload": {"task": "noop"}}
        asking = threading.Thread(
            target=lambda: answers.append(requests.post(f"{fleet.url}/jobs", json=body, timeout=10))
        )
        asking.start()
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%%INSERT INTO jobs%%'"
        eventually(lambda: fleet.rows(waiting)[0][0] > 0)
        fleet.processes["api"].send_signal(signal.SIGTERM)
        blocker.rollback()
    asking.join(10)
    blocker.close()
    assert answers[0].status_code == 201
    fleet.processes.pop("api").wait(30)
    fleet.start("api")
    eventually(lambda: fleet.job(answers[0].json()["id"])["status"] == "completed" if is_up(fleet) else False)


def is_up(fleet) -> bool:
    try:
        return fleet.http.get(f"{fleet.url}/health", timeout=1).ok
    except requests.RequestException:
        return False


def test_a_flushed_broker_costs_seconds_and_no_job(fleet, eventually):
    fleet.stop("worker")
    jobs = [fleet.post("noop") for _ in range(200)]
    fleet.redis().flushall()
    began = time.monotonic()
    fleet.start("worker")
    eventually(lambda: fleet.unfinished() == 0, 30)
    assert time.monotonic() - began < 20
    assert all(fleet.attempts(job) == [(1, "completed")] for job in jobs)
    eventually(lambda: fleet.live_workers() == 2)


def test_jobs_are_taken_while_redis_is_away_and_run_when_it_is_back(fleet, eventually):
    fleet.stop("redis", signal.SIGKILL)
    times, jobs = [], []
    for _ in range(20):
        began = time.monotonic()
        jobs.append(fleet.post("noop"))
        times.append(time.monotonic() - began)
    assert sorted(times)[-2] < 0.25, times
    ready = fleet.http.get(f"{fleet.url}/health/ready", timeout=5)
    assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
    assert "not answering" in ready.json()["dependencies"]["redis"]
    fleet.start("redis")
    valkey.wait(fleet.redis_port)
    assert {fleet.wait_for(job, patience=60)["status"] for job in jobs} == {"completed"}
    eventually(lambda: fleet.live_workers() == 2)


def test_a_job_that_runs_while_redis_dies_completes_once_and_its_worker_lives_on(fleet, eventually):
    job = fleet.post("sleep", seconds=2)
    fleet.wait_for(job, "processing")
    fleet.stop("redis", signal.SIGKILL)
    fleet.start("redis")
    valkey.wait(fleet.redis_port)
    assert fleet.wait_for(job)["status"] == "completed"
    assert fleet.attempts(job) == [(1, "completed")]
    assert fleet.wait_for(fleet.post("noop"))["status"] == "completed"
    assert fleet.processes["worker"].poll() is None
    assert fleet.processes["maintenance"].poll() is None
    eventually(lambda: fleet.live_workers() == 2)


def test_connections_that_postgresql_ends_cost_no_job(fleet):
    jobs = [fleet.post("sleep", seconds=0.2) for _ in range(10)]
    fleet.rows(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = 'djps_system' AND pid <> pg_backend_pid()"
    )
    ended = [fleet.wait_for(job) for job in jobs]
    assert {job["status"] for job in ended} == {"completed"}
