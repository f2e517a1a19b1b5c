"""What is measured, what the page says is measured, and what is on a worker's own port."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path
from urllib.request import urlopen

import pytest
import yaml
from factories import buried
from prometheus_client import Counter, Histogram

from ops.stack import ports
from tasks import exposition
from webapp import heartbeats, metrics

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "ops" / "docs" / "metrics.md"
_ROW = re.compile(r"^\| `(?P<name>\w+)` \| (?P<type>\w+) \| (?P<labels>[^|]*)\|", re.MULTILINE)


@pytest.fixture
def closed_port():
    """A port that somebody else has."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


@pytest.fixture
def in_code(app, engine, redis):
    """Names, types and labels of everything that is declared, gauges as they are read."""
    buried(engine)
    heartbeats.beat(
        redis, "w:1:x", 30, json.dumps({"role": "w", "queues": ["default", "unheard-of"], "children": 1})
    )
    redis.config_set("maxmemory", "512mb")
    try:
        gauges = list(app.extensions["gauges"].collect())
    finally:
        redis.config_set("maxmemory", "0")
        redis.flushdb()
    declared = [one for one in vars(metrics).values() if isinstance(one, (Counter, Histogram))]
    return {
        **{family.name: ("gauge", set(family._labelnames)) for family in gauges},
        **{
            one._name + ("_total" if one._type == "counter" else ""): (one._type, set(one._labelnames))
            for one in declared
        },
    }


def test_the_page_names_what_is_measured_with_its_labels(in_code, clean):
    rows = {found["name"]: found for found in _ROW.finditer(PAGE.read_text())}
    assert set(rows) == set(in_code)
    for name, (kind, labels) in in_code.items():
        assert rows[name]["type"] == kind, name
        given = {
            part.split(":")[0].strip(" `")
            for part in re.split(r", (?=`\w+`(?::|,|$| ))", rows[name]["labels"])
        }
        assert labels <= given, name


def test_a_worker_serves_its_counters_and_no_gauges(application):
    metrics.jobs_created.inc(0)
    port = ports.free()
    server = exposition.serve(port)
    try:
        with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            text = answer.read().decode()
    finally:
        exposition.stop(server)
    assert "jobs_created_total" in text
    assert "job_queue_depth" not in text


def test_a_port_that_is_taken_costs_the_metrics_and_not_the_worker(closed_port, caplog):
    assert exposition.serve(closed_port) is None
    assert "worker's metrics cannot be served" in caplog.messages


def test_without_a_port_nothing_is_served():
    assert exposition.serve(0) is None
    exposition.stop(None)


def test_prometheus_reads_what_compose_starts():
    config = yaml.safe_load((ROOT / "ops" / "prometheus" / "prometheus.yml").read_text())
    services = yaml.safe_load((ROOT / "ops" / "docker" / "compose.yaml").read_text())["services"]
    read = {
        name: found["port"]
        for job in config["scrape_configs"]
        for found in job["dns_sd_configs"]
        for name in found["names"]
    }
    assert set(read) <= set(services)
    for name in ("worker", "maintenance"):
        assert services[name]["environment"]["WORKER_METRICS_PORT"] == str(read[name])
