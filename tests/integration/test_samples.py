"""Samples of what hosts counted: who writes them, how they are folded and read; and the overview that is made of them."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
from factories import age, dead_lettered, queued
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from sqlalchemy import create_engine, text

from tasks.sweeps import fold_figures
from webapp.infra.broker import heartbeats
from webapp.infra.telemetry.metrics import RUN_BUCKETS
from webapp.system import samples
from webapp.system.sampling import KEPT, LOCK, Sampler, host_of
from webapp.system.tables import HOUR, MINUTE, TAKEN

#: A bucket's growth in a series of runs.
_QUICK = [8, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]


class Host:
    """What the processes of a host have counted."""

    def __init__(self):
        self.created, self.buckets = 0, [0] * 12

    def collect(self):
        upto = [sum(self.buckets[: place + 1]) for place in range(12)]
        ends = [*map(str, RUN_BUCKETS), "+Inf"]
        runs = HistogramMetricFamily("job_duration_seconds", "x", labels=["task", "queue"])
        runs.add_metric(["noop", "default"], list(zip(ends, upto, strict=True)), 0.0)
        yield CounterMetricFamily("jobs_created", "x", self.created)
        yield runs


@pytest.fixture
def counted():
    return Host()


def rows(engine):
    with engine.connect() as connection:
        return connection.execute(
            text("SELECT span, host, figures FROM samples ORDER BY span, at, host")
        ).all()


def test_a_sample_is_by_how_much_a_host_counted_more(engine, tmp_path, counted):
    sampler = Sampler(engine, tmp_path, counted.collect)
    counted.created += 7
    # What was counted before anything was known is no growth.
    assert sampler.turn() is False
    counted.created += 2
    counted.buckets[0] += 1
    assert sampler.turn() is True
    assert sampler.turn() is False
    counted.created += 1
    assert sampler.turn() is True
    total = {}
    for span, host, _ in rows(engine):
        assert (span, host) == (TAKEN, host_of(tmp_path))
    for _, _, found in rows(engine):
        total["created"] = total.get("created", 0) + found["created"]
    assert total == {"created": 3}
    assert [found["runs"] for _, _, found in rows(engine) if "runs" in found] == [
        {"noop default": [1] + [0] * 11}
    ]


def test_one_process_of_a_host_samples_and_another_goes_on_when_it_is_gone(engine, tmp_path, counted):
    holds = "import fcntl, sys; f = open(sys.argv[1], 'ab'); fcntl.lockf(f, fcntl.LOCK_EX); print(flush=True); sys.stdin.read()"
    other = subprocess.Popen(
        [sys.executable, "-c", holds, str(tmp_path / LOCK)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        other.stdout.readline()
        (tmp_path / KEPT).write_text(json.dumps({"created": 0}))
        counted.created += 4
        sampler = Sampler(engine, tmp_path, counted.collect)
        assert sampler.turn() is False
        assert rows(engine) == []
    finally:
        other.kill()
        other.communicate()
    assert sampler.turn() is True
    assert rows(engine)[0].figures == {"created": 4}


def test_what_could_not_be_written_is_in_the_next_sample(engine, tmp_path, counted, closed_port):
    away = create_engine(f"postgresql+psycopg2://djps@127.0.0.1:{closed_port}/djps")
    (tmp_path / KEPT).write_text(json.dumps({"created": 0}))
    counted.created += 4
    sampler = Sampler(away, tmp_path, counted.collect)
    assert sampler.turn() is False
    sampler._engine = engine
    counted.created += 1
    assert sampler.turn() is True
    assert rows(engine)[0].figures == {"created": 5}


@pytest.mark.parametrize("kept", ["no JSON", "[]", None])
def test_where_nothing_is_known_of_before_sampling_begins_anew(engine, tmp_path, counted, kept):
    if kept is not None:
        (tmp_path / KEPT).write_text(kept)
    counted.created += 4
    sampler = Sampler(engine, tmp_path, counted.collect)
    assert sampler.turn() is False
    counted.created += 1
    assert sampler.turn() is True
    assert rows(engine)[0].figures == {"created": 1}


def test_a_folder_that_nothing_can_be_written_to_costs_samples_and_nothing_else(engine, tmp_path, counted):
    (tmp_path / "file").write_text("")
    assert Sampler(engine, tmp_path / "file" / "folder", counted.collect).turn() is False


def test_the_counters_of_this_host_can_be_sampled(engine):
    sampler = Sampler(engine)
    sampler.turn()
    found = json.loads((sampler._folder / KEPT).read_text())
    assert {"created", "completed", "late"} <= set(found)
    (sampler._folder / KEPT).unlink()


def fill(engine, now):
    """Samples of two hosts: of each ten seconds of the last hours, and older ones."""
    with engine.begin() as connection:
        for host in ("a", "b"):
            for back in range(0, 3 * 3_600, 600):
                at = now - timedelta(seconds=back)
                for more in (0, 10):
                    given = {"created": 2, "runs": {"noop default": _QUICK, "sleep slow": _QUICK[::-1]}}
                    samples.add(connection, host, given, at=at - timedelta(seconds=more))
            samples.add(connection, host, {"created": 5}, span=MINUTE, at=now - timedelta(days=4))
            samples.add(connection, host, {"created": 7}, span=HOUR, at=now - timedelta(days=91))


def test_samples_are_folded_and_deleted_and_their_sum_stays(engine, parts):
    now = datetime.now(UTC).replace(minute=0, second=30, microsecond=0)
    fill(engine, now)

    def total(name="created"):
        with engine.connect() as connection:
            found = samples.counts(
                connection, name, now - timedelta(days=30), now + timedelta(hours=1), 3_600
            )
        return sum(count for _, count in found)

    before = total()
    assert before == 2 * (18 * 2 * 2 + 5)
    fold_figures.run_fold(parts, batch=7)
    fold_figures.run_fold(parts)
    assert total() == before
    spans = [row.span for row in rows(engine)]
    assert spans.count(HOUR) == 2, "that of four days ago, of each host; the one of ninety-one is gone"
    # Two samples of ten seconds are one of a minute.
    assert spans.count(MINUTE) > 0
    assert [row.figures["created"] for row in rows(engine) if row.span == MINUTE] == [4] * spans.count(MINUTE)
    with engine.connect() as connection:
        oldest = connection.execute(text("SELECT min(at) FROM samples WHERE span = 10")).scalar_one()
    assert datetime.now(UTC) - oldest < timedelta(seconds=samples.KEPT[TAKEN] + 700)


def test_one_session_folds_at_a_time(engine):
    with engine.begin() as first, engine.begin() as second:
        samples.add(first, "a", {"created": 1}, at=datetime.now(UTC) - timedelta(hours=5))
        assert samples.fold(first, 10) == 1
        assert samples.fold(second, 10) == 0


def test_a_second_sample_of_a_moment_is_added_to_the_first(engine):
    at = datetime(2026, 11, 28, tzinfo=UTC)
    with engine.begin() as connection:
        for _ in range(3):
            samples.add(connection, "a", {"created": 2}, at=at)
    assert [row.figures for row in rows(engine)] == [{"created": 6}]


def test_a_series_is_read_in_steps(client, engine):
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    fill(engine, now)
    given = {"from": (now - timedelta(hours=1)).isoformat(), "to": (now + timedelta(minutes=1)).isoformat()}
    answer = client.get("/series", query_string=given | {"name": "created", "step": 600}).json
    assert (answer["name"], answer["step"]) == ("created", 600)
    assert sum(one["count"] for one in answer["items"]) == 2 * 2 * 13
    assert len(answer["items"]) <= 7
    runs = client.get("/series", query_string=given | {"name": "runs", "step": 86_400}).json["items"][0]
    assert runs["count"] == 2 * 2 * 10 * 13
    assert runs["spread"]["p99"] == [300.0, None]
    noop = client.get("/series", query_string=given | {"name": "runs", "task": "noop", "step": 86_400}).json
    assert noop["items"][0]["spread"] == {"p50": [0.0, 0.005], "p95": [0.025, 0.1], "p99": [0.025, 0.1]}
    nothing = {"name": "runs", "task": "noop", "queue": "slow"}
    assert client.get("/series", query_string=given | nothing).json["items"] == []
    assert client.get("/series?name=created").json["step"] == 60


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"name": "secrets"}, "name"),
        ({}, "name"),
        ({"name": "created", "task": "noop"}, "body"),
        ({"name": "created", "from": "2026-01-02T00:00:00Z", "to": "2026-01-01T00:00:00Z"}, "from"),
        ({"name": "created", "from": "2020-01-02T00:00:00Z"}, "from"),
        (
            {"name": "created", "step": 10, "from": "2026-01-01T00:00:00Z", "to": "2026-01-02T00:00:00Z"},
            "step",
        ),
        ({"name": "created", "step": 15}, "step"),
    ],
)
def test_a_range_that_cannot_be_told_of_is_refused(client, query, field):
    answer = client.get("/series", query_string=query)
    assert answer.status_code == 422
    assert field in answer.json["errors"][0]["field"] or field == "body"


def kinds(client):
    answer = client.get("/overview")
    assert answer.status_code == 200, answer.text
    return answer.json, [one["kind"] for one in answer.json["attention"]]


def well(redis):
    for name, queues in (("w:1:x", ["default"]), ("m:1:x", ["maintenance"])):
        heartbeats.beat(redis, name, 30, json.dumps({"queues": queues, "children": 2, "busy": 1}))
    heartbeats.tick(redis)


def test_an_overview_of_what_does_well_needs_no_attention(client, engine, redis):
    well(redis)
    queued(engine)
    with engine.begin() as connection:
        at = datetime.now(UTC) - timedelta(seconds=30)
        samples.add(connection, "a", {"created": 120, "runs": {"noop default": _QUICK}}, at=at)
    shown, attention = kinds(client)
    assert attention == []
    assert shown["per_second"]["created"] == 2.0
    assert shown["runs"]["p50"] == [0.0, 0.005]
    assert shown["waits"] == {"p50": None, "p95": None, "p99": None}
    assert (shown["working"]["workers"], shown["working"]["children"]) == (1, 2)
    (default,) = (one for one in shown["queues"] if one["name"] == "default")
    assert (default["waiting"], default["due"]) == (1, 1)


def test_an_overview_says_what_needs_attention_with_where_to_look(client, engine, redis):
    well(redis)
    queued(engine)
    age(engine, "run_at", 100)
    queued(engine, queue="slow")
    dead_lettered(engine)
    client.post("/tasks/noop/pause")
    shown, attention = kinds(client)
    assert attention == ["late", "no_listener", "task_paused", "dead_letters"]
    assert (shown["open_letters"], shown["failing"][0]["count"], shown["paused_tasks"]) == (1, 1, ["noop"])
    for one in shown["attention"]:
        assert client.get(one["link"]).status_code == 200, one
    client.post("/queues/default/pause")
    redis.flushdb()
    shown, attention = kinds(client)
    assert attention[:3] == ["beat_silent", "no_maintenance", "no_workers"]
    assert "queue_paused" in attention


def test_an_overview_is_there_with_redis_away(another_app, closed_port):
    client = another_app(redis_url=f"redis://127.0.0.1:{closed_port}/0").test_client()
    shown, attention = kinds(client)
    assert (shown["working"], attention) == (None, ["redis_away"])
