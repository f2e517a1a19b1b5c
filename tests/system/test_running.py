"""Jobs through real gunicorn, worker, maintenance and beat processes, while nothing is broken."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

pytestmark = pytest.mark.system


def test_two_hundred_jobs_complete_once_each_and_the_counters_say_so(fleet, eventually):
    before = {name: fleet.metric(name) for name in ("jobs_created_total", "jobs_completed_total")}
    jobs = [fleet.post("noop", number=number) for number in range(200)]
    eventually(lambda: fleet.unfinished() == 0, 60)
    found = fleet.rows(
        "SELECT status, attempt, count(*) FROM jobs WHERE id = ANY(%s::uuid[]) GROUP BY 1, 2",
        [job["id"] for job in jobs],
    )
    assert found == [("completed", 1, 200)]
    for name, value in before.items():
        eventually(lambda name=name, value=value: fleet.metric(name) == value + 200)
    fleet.stop("worker")
    fleet.start("worker")
    eventually(lambda: fleet.live_workers() == 2)
    assert fleet.wait_for(fleet.post("noop"))["status"] == "completed"
    eventually(lambda: fleet.metric("jobs_completed_total") == before["jobs_completed_total"] + 201)
    assert fleet.metric("job_duration_seconds_count") >= 201


def test_a_failing_job_is_tried_at_0_2_6_and_14_seconds_and_then_is_in_the_dead_letter_queue(fleet):
    job = fleet.wait_for(fleet.post("fail"), "failed")
    started = fleet.rows(
        "SELECT extract(epoch FROM started_at - created_at) FROM attempts JOIN jobs ON id = job_id"
        " WHERE id = %s ORDER BY attempts.attempt",
        job["id"],
    )
    assert [float(row[0]) for row in started] == pytest.approx([0, 2, 6, 14], abs=1.5)
    assert job["retry_count"] == job["max_retries"] == 3
    assert job["last_error"] == "AlwaysFails: this handler always fails"
    dead = fleet.http.get(f"{fleet.url}/dlq", timeout=10).json()
    assert job["id"] in [one["id"] for one in dead]
    assert fleet.metric("jobs_failed_total") >= 1


def test_a_job_that_outlasts_its_lease_runs_once(fleet):
    job = fleet.wait_for(fleet.post("sleep", seconds=8))
    assert (job["status"], job["attempt"], job["result"]) == ("completed", 1, {"slept": 8.0})


def test_the_default_handler_calls_its_service(fleet):
    job = fleet.wait_for(fleet.submit({"payload": {"anything": [1, 2]}}))
    assert (job["task"], job["status"], job["result"]) == ("simulated", "completed", {"status_code": 200})


def test_a_hundred_posts_with_one_key_make_one_job(fleet, answered):
    body = {"payload": {"task": "noop"}, "idempotency_key": "one of a hundred"}

    def submit(_):
        return answered(lambda: requests.post(f"{fleet.url}/jobs", json=body, timeout=20))

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(submit, range(100)))
    assert sorted({answer.status_code for answer in answers}) == [200, 201]
    assert sum(answer.status_code == 201 for answer in answers) == 1
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert fleet.rows("SELECT count(*) FROM jobs WHERE idempotency_key = 'one of a hundred'") == [(1,)]


def test_a_handler_from_outside_the_packages_runs_in_its_own_queue(fleet):
    job = fleet.wait_for(fleet.post("send-email", to="ada@example.org"))
    assert job["result"] == {"to": "ada@example.org", "attempt": 1}
    assert (job["queue"], job["max_retries"], job["timeout"]) == ("mail", 1, 10.0)


def test_a_handler_decides_with_retry_and_discard(fleet):
    again = fleet.wait_for(fleet.post("again"))
    assert (again["status"], again["attempt"], again["last_error"]) == ("failed", 2, "Retry: not yet")
    no_use = fleet.wait_for(fleet.post("no-use"))
    assert (no_use["status"], no_use["attempt"]) == ("failed", 1)
    reasons = dict(fleet.rows("SELECT job_id::text, reason FROM dead_letters"))
    assert (reasons[again["id"]], reasons[no_use["id"]]) == ("exhausted", "discarded")


def test_an_attempt_that_runs_too_long_is_stopped(fleet):
    job = fleet.wait_for(fleet.post("too-slow"))
    assert job["status"] == "failed"
    assert job["last_error"] == "JobTimeout: the attempt ran longer than its timeout of 0.5 s"


def test_a_handler_that_ignores_its_time_limit_is_killed(fleet):
    job = fleet.wait_for(fleet.post("stubborn"))
    assert job["status"] == "failed"
    assert job["last_error"] == "JobTimeout: the attempt ran longer than its timeout of 0.5 s"
    assert fleet.attempts(job) == [(1, "failed")]


def test_a_second_beat_does_no_harm(fleet, eventually):
    fleet.start("second-beat")
    try:
        jobs = [fleet.post("again") for _ in range(10)]
        ended = [fleet.wait_for(job) for job in jobs]
    finally:
        fleet.stop("second-beat")
    assert {(job["status"], job["attempt"]) for job in ended} == {("failed", 2)}
    assert all(fleet.attempts(job) == [(1, "failed"), (2, "failed")] for job in ended)


def test_heartbeats_have_a_time_to_live_and_are_counted(fleet):
    redis = fleet.redis()
    keys = list(redis.scan_iter("djps:worker:*"))
    assert len(keys) == 2
    assert all(0 < redis.ttl(key) <= 3 for key in keys)
    assert fleet.metric("active_workers") == 2


def test_every_line_of_every_process_is_json_and_shows_no_payload(fleet, eventually):
    canary = "canary-5f2b9c"
    job = fleet.wait_for(fleet.post("noop", secret=canary))
    failed = fleet.wait_for(fleet.post("again", secret=canary))

    def lines():
        found = {}
        for name in ("api", "worker", "maintenance", "beat"):
            text = (fleet.folder / f"{name}.log").read_text()
            assert canary not in text
            strange = [line for line in text.splitlines() if not line.startswith("{")]
            assert not strange, f"in the log of {name}: {strange[:50]}"
            found[name] = [json.loads(line) for line in text.splitlines()]
        return found

    eventually(lambda: any(line.get("job_id") == failed["id"] for line in lines()["maintenance"]))
    for name, found in lines().items():
        assert found, f"{name} says nothing"
        for line in found:
            assert {"timestamp", "level", "logger", "message"} <= set(line)
    done = [line for line in lines()["worker"] if line.get("job_id") == job["id"]]
    assert [line["message"] for line in done] == ["job completed"]
    assert all({"attempt", "worker_id", "request_id"} <= set(line) for line in done)
    accessed = [line for line in lines()["api"] if line["logger"] == "gunicorn.access"]
    assert done[0]["request_id"] in {line["request_id"] for line in accessed}
    # Machines ask these every few seconds; what went well would bury the rest.
    assert fleet.ready()
    routine = [line for line in accessed if line["path"] in {"/metrics", "/health", "/health/ready"}]
    assert [line for line in routine if line["status"] < 400] == []


def test_a_lone_job_starts_within_a_second(fleet):
    began = time.monotonic()
    job = fleet.wait_for(fleet.post("noop"))
    assert job["status"] == "completed"
    assert time.monotonic() - began < 1
