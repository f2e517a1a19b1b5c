"""What those see who run DJPS: workers and what they run, tasks and their payloads, settings, servers."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime

import pytest
from factories import claimed
from pydantic import BaseModel
from redis.exceptions import RedisError

from tasks.presence.thread import Presence
from tasks.processes import process_memory
from tasks.runtime import worker_name
from webapp import VERSION
from webapp.infra.broker import heartbeats
from webapp.infra.broker.heartbeats import Worker, seen_key_of
from webapp.settings import Settings
from webapp.system import configuration, workers
from webapp.system.configuration import Source

SAID = {"role": "worker@vm", "queues": ["default"], "children": 2, "busy": 1, "idle": 4}


def say(redis, name="vm:17:boot", **more):
    heartbeats.beat(redis, name, 30, json.dumps(SAID | more))


def test_a_worker_is_shown_with_what_each_of_its_processes_runs(client, redis, engine):
    job = claimed(engine, task="sleep")
    gone = "01a20bef-39c9-7245-9b70-997d89a16688"
    runs = [[18, str(job.id), 1, 7.5], [19, gone, 2, 1], ["x"], [20, "no id", 1, 1], [21, str(job.id), -1, 0]]
    say(redis, pid=17, version=VERSION, up=100, memory=1_000_000, runs=runs)
    answer = client.get("/workers").json
    (shown,) = answer["items"]
    assert answer["gone"] == []
    assert [(run["child"], run["job_id"], run["task"]) for run in shown["runs"]] == [
        (18, str(job.id), "sleep"),
        (19, gone, None),
    ]
    assert 7.5 <= shown["runs"][0]["seconds"] < 20
    assert (shown["host"], shown["pid"], shown["alive"], shown["memory_bytes"]) == ("vm", 17, True, 1_000_000)
    up = (datetime.now(UTC) - datetime.fromisoformat(shown["started_at"])).total_seconds()
    assert 100 <= up < 120
    assert client.get("/workers/vm:17:boot").json["runs"][0]["job_id"] == str(job.id)


def test_a_worker_that_is_gone_is_told_of_for_an_hour(client, redis):
    say(redis)
    say(redis, "vm:18:boot", runs=[[19, "01a20bef-39c9-7245-9b70-997d89a16688", 1, 1]])
    heartbeats.leave(redis, "vm:18:boot")
    answer = client.get("/workers").json
    assert ([one["name"] for one in answer["items"]], [one["name"] for one in answer["gone"]]) == (
        ["vm:17:boot"],
        ["vm:18:boot"],
    )
    shown = client.get("/workers/vm:18:boot").json
    assert (shown["alive"], shown["busy"], shown["runs"]) == (False, 0, [])
    assert 3_590 < redis.ttl(seen_key_of("vm:18:boot")) <= heartbeats.SEEN_KEPT
    redis.delete(seen_key_of("vm:18:boot"))
    assert client.get("/workers/vm:18:boot").status_code == 404
    assert client.get("/workers").json["gone"] == []


def test_a_worker_of_an_earlier_release_says_less(client, redis):
    redis.set(heartbeats.key_of("old:1:x"), json.dumps(SAID), ex=30)
    redis.lpush(seen_key_of("poison"), "x")
    redis.set(seen_key_of("for ever"), "x")
    answer = client.get("/workers").json
    (shown,) = answer["items"]
    assert answer["gone"] == []
    nothing = ("pid", "version", "started_at", "memory_bytes", "seen_seconds_ago")
    assert [shown[name] for name in nothing] == [None] * 5
    assert shown["runs"] == []


@pytest.mark.parametrize(
    "poison", ["[]", '{"runs": 7, "version": [], "up": "x", "memory": -1}', '{"runs": [[null]]}']
)
def test_a_worker_that_talks_nonsense_is_shown_all_the_same(client, redis, poison):
    heartbeats.beat(redis, "w:1:x", 30, poison)
    assert [one["runs"] for one in client.get("/workers").json["items"]] == [[]]


@pytest.mark.parametrize("path", ["/workers", "/workers/vm:1:x"])
def test_workers_are_not_known_with_redis_away(another_app, closed_port, path):
    client = another_app(redis_url=f"redis://127.0.0.1:{closed_port}/0").test_client()
    answer = client.get(path)
    assert (answer.status_code, answer.content_type) == (503, "application/problem+json")
    assert answer.headers["Retry-After"] == "1"
    assert "Redis is not answering" in answer.json["detail"]


def test_a_presence_says_what_is_shown(client, settings):
    Presence(settings, role="worker@test").run_once()
    (shown,) = client.get("/workers").json["items"]
    assert (shown["name"], shown["version"], shown["pid"]) == (worker_name(), VERSION, os.getpid())
    assert shown["memory_bytes"] > 10_000_000
    assert shown["seen_seconds_ago"] < 10


def test_memory_is_that_of_a_process_and_its_children(tmp_path):
    for pid, children, share in ((7, "8 9", 100), (8, "", 20), (9, "", None)):
        (tmp_path / f"{pid}/task/{pid}").mkdir(parents=True)
        (tmp_path / f"{pid}/task/{pid}/children").write_text(children)
        if share is not None:
            (tmp_path / f"{pid}/smaps_rollup").write_text(f"Rss:  999 kB\nPss:    {share} kB\n")
    assert process_memory.of_family(7, tmp_path) == 120 * 1024
    assert process_memory.of_family(17, tmp_path) == 0
    assert os.getpid() in process_memory.children_of(os.getppid())


def test_workers_are_parted_by_their_heartbeats():
    old, new, gone = (Worker(name, "w", (), 0, 0, 0, 0.0) for name in ("old", "new", "gone"))
    assert workers.parted([new, old], [gone, new]) == ([new, old], [gone])


class Mail(BaseModel):
    to: str


class Broken(BaseModel):
    @classmethod
    def model_json_schema(cls, *_, **__):
        raise RuntimeError("no schema")


def test_a_task_is_shown_with_what_its_handler_says(client, handle):
    name = handle(lambda _payload, _context: None, model=Mail, max_retries=5, tags=("a",), queue="mail")
    shown = client.get(f"/tasks/{name}").json
    assert (shown["handler"]["queue"], shown["handler"]["max_retries"], shown["handler"]["tags"]) == (
        "mail",
        5,
        ["a"],
    )
    assert shown["handler"]["payload_schema"]["required"] == ["to"]
    assert client.get("/tasks").json["items"][0]["handler"]["queue"] == "default"


def test_a_model_without_a_schema_costs_the_task_nothing_else(client, handle):
    name = handle(lambda _payload, _context: None, model=Broken)
    assert client.get(f"/tasks/{name}").json["handler"]["payload_schema"] is None


def test_settings_say_where_they_come_from_and_no_secret():
    settings = Settings(
        database_url="postgresql+psycopg2://djps:hunter2@db/djps",
        webhook_secrets="whsec_aHVudGVyMmh1bnRlcjJodW50ZXIyaHVudGVyMg==",
        api_port=8_001,
        max_job_retries=5,
        num_workers=7,
    )
    found = {
        one.name: one
        for one in configuration.settings_of(
            settings, ["DATABASE_URL", "API_PORT", "PATH"], ["MAX_JOB_RETRIES", "API_PORT"]
        )
    }
    assert "hunter2" not in str(found)
    assert "aHVudGVy" not in str(found)
    assert (found["DATABASE_URL"].value, found["DATABASE_URL"].source) == ("set", Source.ENVIRONMENT)
    assert (found["WEBHOOK_SECRETS"].value, found["AUDIT_KEY"].value) == ("set", "")
    assert (found["API_PORT"].value, found["API_PORT"].source) == (8_001, Source.ENVIRONMENT)
    assert found["MAX_JOB_RETRIES"][1:4] == (5, 3, Source.FILE)
    assert found["NUM_WORKERS"].source is Source.STACK
    assert found["RETENTION_DAYS"].source is Source.DEFAULT
    assert len(found) == len(Settings.model_fields)


def test_settings_are_shown(client, settings):
    shown = {one["name"]: one for one in client.get("/settings").json["items"]}
    assert shown["DATABASE_URL"]["value"] == "set"
    assert settings.database_url not in json.dumps(shown)
    assert shown["DJPS_DATA_DIR"]["value"] == str(settings.data_dir)


def test_the_system_says_how_its_servers_do(client, redis):
    heartbeats.tick(redis)
    say(redis, queues=["maintenance"])
    shown = client.get("/system").json
    assert shown["version"] == VERSION
    assert shown["postgresql"]["size_bytes"] > 1_000_000
    assert shown["postgresql"]["migration"] >= "0032"
    assert sum(one["count"] for one in shown["postgresql"]["connections"]) > 0
    assert shown["redis"]["memory_used_bytes"] > 0
    assert shown["beat_tick_age_seconds"] < 10
    assert (shown["maintenance_workers"], shown["maintenance_idle_seconds"]) == (1, 4.0)


def test_the_system_says_what_it_can_with_redis_away(another_app, closed_port):
    client = another_app(redis_url=f"redis://127.0.0.1:{closed_port}/0").test_client()
    shown = client.get("/system").json
    assert shown["postgresql"]["size_bytes"] > 1_000_000
    assert [shown[name] for name in ("redis", "beat_tick_age_seconds", "maintenance_workers")] == [None] * 3


def test_what_redis_refuses_is_no_worker(redis, monkeypatch):
    say(redis)
    pipe = redis.pipeline(transaction=False)
    monkeypatch.setattr(type(pipe), "execute", lambda *_, **__: [RedisError("NOPERM"), RedisError("NOPERM")])
    with pytest.raises(RedisError, match="NOPERM"):
        heartbeats.seen_workers(redis)
