from __future__ import annotations

import json
import os
import re
import time
from contextlib import suppress

import pytest
from factories import ENDS, age, claimed, completed, dead_lettered, queued
from prometheus_client import CONTENT_TYPE_LATEST
from prometheus_client.parser import text_string_to_metric_families

from tasks.dead_letter import move_job
from tasks.execution import execute_job
from tasks.presence import lost_jobs
from webapp.infra.broker import heartbeats, redis_keys
from webapp.infra.telemetry import metrics
from webapp.jobs import store
from webapp.jobs.handlers import registry
from webapp.queues.dispatch import hand_back

PROMISED = {
    "jobs_created_total",
    "jobs_completed_total",
    "jobs_failed_total",
    "jobs_retried_total",
    "jobs_recovered_total",
    "job_duration_seconds_count",
    "job_wait_seconds_count",
    "job_queue_depth",
    "job_oldest_due_age_seconds",
    "active_workers",
}


@pytest.fixture
def scrape(client):
    """The samples of one scrape, by name and labels."""

    def once():
        answer = client.get("/metrics")
        assert (answer.status_code, answer.content_type) == (200, CONTENT_TYPE_LATEST)
        return {
            (sample.name, *sorted(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(answer.text)
            for sample in family.samples
        }

    return once


def names(samples):
    return {key[0] for key in samples}


def in_child(work):
    """Runs `work` in a process of its own, which then dies without a word."""
    pid = os.fork()
    if pid == 0:  # pragma: no cover - another process, ended before its coverage is written
        try:
            work()
        finally:
            os._exit(0)
    os.waitpid(pid, 0)


def test_everything_that_is_promised_is_there(scrape, client, engine):
    client.post("/jobs", json={"payload": {"task": "noop"}})
    claimed(engine)
    age(engine, "lease_expires_at", 1_000)
    metrics.jobs_recovered.labels("lease_expired").inc(0)
    for counter in (metrics.jobs_completed, metrics.jobs_failed, metrics.jobs_retried):
        counter.inc(0)
    metrics.observe_run("noop", "default", 0.1)
    metrics.observe_wait("noop", "default", 0.1)
    assert names(scrape()) >= PROMISED


def test_late_starts_are_counted_and_those_in_time_are_not(scrape):
    key = ("job_starts_late_total",)
    before = scrape()[key]
    metrics.observe_wait("noop", "default", metrics.LATE)
    metrics.observe_wait("noop", "default", metrics.LATE + 0.1)
    metrics.observe_many("noop", "default", [0.1, 6.0, 7.0], [0.1, 0.1, 0.1])
    assert scrape()[key] == before + 3


def test_each_outcome_is_counted_once(scrape, engine, handle, redis):
    def broken(payload, context):
        raise ValueError

    before = scrape()
    for task, retries in (("noop", 3), (handle(broken), 0), (handle(broken), 3)):
        row = queued(engine, task=task, max_retries=retries)
        with suppress(ENDS):
            execute_job.run(str(row.id))
        move_job.run(str(row.id), 1)
    execute_job.run(str(row.id))
    after = scrape()

    def grown(name, **labels):
        def total(samples):
            return sum(
                value
                for (found, *having), value in samples.items()
                if found == name and set(labels.items()) <= set(having)
            )

        return total(after) - total(before)

    assert grown("jobs_completed_total") == 1
    assert grown("jobs_failed_total") == 1
    assert grown("jobs_retried_total") == 1
    assert grown("job_claims_refused_total") == 1
    assert grown("job_duration_seconds_count") == grown("job_wait_seconds_count") == 3
    assert grown("job_wait_seconds_count", task="noop", queue="default") == 1
    assert grown("job_duration_seconds_count", task="other", queue="default") == 2
    assert grown("job_retries_total", task="other") == 1
    assert grown("job_burials_total", task="other", reason="exhausted") == 1


def test_recoveries_are_counted_by_their_reason(scrape, engine, parts):
    before = scrape()
    claimed(engine)
    lost_jobs.settle(
        engine,
        parts.policy,
        "child_died",
        lambda connection: store.take_held_by(connection, ["host:1:boot/2"]),
    )
    key = ("jobs_recovered_total", ("reason", "child_died"))
    assert scrape()[key] - before.get(key, 0) == 1


def test_what_a_dead_process_counted_stays_counted_and_a_new_one_goes_on(scrape):
    before = scrape().get(("jobs_completed_total",), 0)
    for _ in range(3):
        in_child(lambda: metrics.jobs_completed.inc(2))
    metrics.jobs_completed.inc()
    assert scrape()["jobs_completed_total",] - before == 7


def test_recycled_processes_do_not_pile_up_files(scrape):
    in_child(metrics.jobs_completed.inc)
    files = set(metrics.FOLDER.iterdir())
    for _ in range(5):
        in_child(metrics.jobs_completed.inc)
    assert set(metrics.FOLDER.iterdir()) == files


def test_depths_are_read_when_they_are_asked_for(scrape, engine):
    found = scrape()
    assert found["job_queue_depth", ("queue", "default"), ("status", "queued")] == 0
    assert found["job_oldest_due_age_seconds", ("queue", "default")] == 0
    first = queued(engine)
    queued(engine)
    claimed(engine)
    completed(engine)
    dead_lettered(engine)
    age(engine, "run_at", 100, first.id)
    found = scrape()
    assert found["job_queue_depth", ("queue", "default"), ("status", "queued")] == 2
    assert found["job_queue_depth", ("queue", "default"), ("status", "processing")] == 1
    assert 100 <= found["job_oldest_due_age_seconds", ("queue", "default")] < 110


def test_active_workers_are_those_with_a_heartbeat(scrape, redis):
    assert scrape()["active_workers",] == 0
    heartbeats.beat(redis, "a:1:x", 30, "{}")
    said = {"role": "worker@b", "queues": ["default"], "children": 2, "busy": 1, "idle": 4.5}
    heartbeats.beat(redis, "b:1:x", 30, json.dumps(said))
    found = scrape()
    assert found["active_workers",] == 2
    assert found["queue_workers", ("queue", "default")] == 1
    assert found["queue_workers", ("queue", "maintenance")] == 0
    worker = ("worker", "worker@b")
    assert found["worker_up", ("worker", "a")] == found["worker_up", worker] == 1
    assert (found["worker_children", worker], found["worker_busy_children", worker]) == (2, 1)
    assert found["worker_last_claim_age_seconds", worker] == 4.5
    heartbeats.leave(redis, "a:1:x")
    assert scrape()["active_workers",] == 1
    assert heartbeats.live_workers(redis) == ["b:1:x"]
    assert 0 < redis.ttl("djps:worker:b:1:x") <= 30


def test_no_id_and_no_payload_is_ever_a_label(client, engine):
    job = client.post(
        "/jobs", json={"payload": {"task": "noop", "a": "sesame"}, "idempotency_key": "my-key"}
    ).json
    client.get(f"/jobs/{job['id']}")
    text = client.get("/metrics").text
    assert not re.search(r"[0-9a-f]{8}-[0-9a-f]{4}-", text)
    assert "sesame" not in text
    assert "my-key" not in text


def test_a_gauge_whose_source_is_away_is_left_out_and_the_rest_is_there(another_app, closed_port):
    metrics.jobs_created.inc(0)
    without_redis = another_app(redis_url=f"redis://127.0.0.1:{closed_port}/0").test_client()
    text = without_redis.get("/metrics").text
    assert "job_queue_depth" in text
    assert "active_workers" not in text
    assert "redis_up 0.0" in text
    assert "database_up 1.0" in text
    url = f"postgresql://djps:djps@127.0.0.1:{closed_port}/djps"
    answer = another_app(database_url=url).test_client().get("/metrics")
    assert answer.status_code == 200
    assert "active_workers" in answer.text
    assert "jobs_created_total" in answer.text
    assert "job_queue_depth" not in answer.text
    assert "database_up 0.0" in answer.text


def test_submissions_are_counted_by_what_became_of_them(scrape, client, app):
    before = scrape()

    def post(body, path="/jobs", **options):
        return client.post(path, json=body, **options).status_code

    known = {"payload": {"task": "noop"}, "idempotency_key": "k"}
    assert [post(known), post(known), post({**known, "payload": {"task": "fail"}})] == [201, 200, 422]
    assert post({"payload": 1}) == 422
    assert client.post("/jobs", data="x").status_code == 415
    assert post({"jobs": [known, {"payload": {"task": "noop"}}, {}]}, "/jobs/batch") == 200
    assert post({"jobs": 1}, "/jobs/batch") == 422
    after = scrape()
    grown = {
        key[1:]: value - before.get(key, 0)
        for key, value in after.items()
        if key[0] == "job_submissions_total" and value != before.get(key, 0)
    }
    assert grown == {
        (("outcome", "created"), ("reason", "")): 2,
        (("outcome", "replayed"), ("reason", "")): 2,
        (("outcome", "refused"), ("reason", "key_reused")): 1,
        (("outcome", "refused"), ("reason", "invalid")): 3,
        (("outcome", "refused"), ("reason", "not_json")): 1,
    }


def test_requests_are_counted_by_route_and_never_by_path_or_made_up_method(scrape, client):
    client.get("/jobs/not-a-uuid")
    client.get("/no/such/path")
    client.open("/jobs", method="BREW")
    found = scrape()
    routes = {
        dict(key[1:]).get("route") for key in found if key[0] == "flask_http_request_duration_seconds_count"
    }
    assert {"/jobs/<job_id>", "none"} <= routes
    text = client.get("/metrics").text
    assert "not-a-uuid" not in text
    assert "no/such" not in text
    assert "BREW" not in text


def test_dead_letters_and_connections_are_read_when_they_are_asked_for(scrape, engine, handle):
    dead_lettered(engine)
    dead_lettered(engine)
    dead_lettered(engine, task=handle(lambda payload, context: None))
    found = scrape()
    assert found["dead_letters_open", ("task", "noop")] == 2
    assert found["dead_letters_open", ("task", "other")] == 1
    assert found["dead_letters_open", ("task", "sleep")] == 0
    assert found["database_connections_max",] > 0
    assert found["database_connections", ("role", "api"), ("state", "active")] >= 1


def test_a_queue_that_no_handler_names_any_more_is_seen_to_have_no_worker(scrape, engine, redis):
    """After a restart with fewer handlers its jobs still wait."""
    key = ("queue_workers", ("queue", "other"))
    assert key not in scrape()
    queued(engine, queue="gone")
    found = scrape()
    assert (found[key], found["job_due", ("queue", "other")]) == (0, 1)
    heartbeats.beat(redis, "w:1:x", 30, json.dumps({"queues": ["gone", "default"]}))
    assert scrape()[key] == 1
    queued(engine, queue="gone as well")
    assert scrape()[key] == 0


def test_redis_tells_its_memory_and_what_waits_in_it(scrape, redis):
    redis.rpush("default", "a", "b")
    found = scrape()
    assert found["broker_messages", ("queue", "default")] == 2
    assert 0 < found["redis_memory_used_bytes",] < found["redis_memory_max_bytes",]


def test_beats_age_is_known_by_rediss_clock_alone(scrape, redis):
    assert scrape()["beat_last_tick_age_seconds",] == heartbeats.BEAT_KEPT
    began = time.monotonic()
    heartbeats.tick(redis)
    age = scrape()["beat_last_tick_age_seconds",]
    assert 0 <= age <= time.monotonic() - began + 1
    began = time.monotonic()
    redis.pexpire(redis_keys.key(redis_keys.BEAT), (heartbeats.BEAT_KEPT - 60) * 1_000)
    age = scrape()["beat_last_tick_age_seconds",]
    assert 60 <= age <= 60 + time.monotonic() - began + 1


def test_hints_that_cannot_be_sent_are_counted(scrape, engine):
    before = scrape()["job_dispatch_failures_total",]
    row = queued(engine, dispatched=True)
    hand_back(engine, [row.id])
    assert scrape()["job_dispatch_failures_total",] == before + 1


def test_hints_that_the_api_sends_are_counted(scrape, client, service):
    key = ("jobs_dispatched_total", ("reason", "submitted"))
    before = scrape().get(key, 0)
    client.post("/jobs", json={"payload": {"task": "noop"}})
    assert service.flush()
    assert scrape()[key] == before + 1


def test_there_are_never_more_labels_than_registered_names(application):
    names = [f"t{number:04}" for number in range(1_000)]
    metrics.know(names, ["default"])
    try:
        assert metrics.task_label("t0199") == "t0199"
        assert metrics.task_label("t0200") == metrics.task_label("unheard of") == metrics.OTHER
        assert metrics.queue_label("unheard of") == metrics.OTHER
    finally:
        metrics.know(registry.names(), registry.queues())
