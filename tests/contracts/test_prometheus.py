"""Metrics, their table, the rules, the runbooks and the dashboards say the same."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from prometheus_client import Counter, Histogram

from ops.stack import prometheus
from webapp.api.gauges import GAUGES
from webapp.infra.telemetry import metrics

ROOT = Path(__file__).resolve().parents[2]
PROMETHEUS = ROOT / "ops" / "prometheus"
RUNBOOKS = ROOT / "ops" / "docs" / "runbooks"
TESTS = sorted((PROMETHEUS / "tests").glob("*.yml"))
DASHBOARDS = sorted((ROOT / "ops" / "grafana" / "dashboards").glob("*.json"))
GROUPS = [
    group
    for file in (PROMETHEUS / "rules").glob("*.yml")
    for group in yaml.safe_load(file.read_text())["groups"]
]
RULES = [rule for group in GROUPS for rule in group["rules"]]
ALERTS = {rule["alert"]: rule for rule in RULES if "alert" in rule}
RECORDED = {rule["record"] for rule in RULES if "record" in rule}

#: What prometheus-flask-exporter, Flower and Prometheus count themselves, as far as it is used.
FOREIGN = {
    "flask_http_request_duration_seconds": ("histogram", ("method", "route", "status")),
    "flask_http_request_total": ("counter", ("method", "status")),
    "flask_http_request_exceptions_total": ("counter", ("method", "status")),
    "flower_worker_online": ("gauge", ("worker",)),
    "flower_events_total": ("counter", ("worker", "type", "task")),
    "up": ("gauge", ("job", "instance")),
}
#: Words of the language that stand where a metric's name could.
_WORDS = {
    "by",
    "without",
    "on",
    "ignoring",
    "group_left",
    "group_right",
    "and",
    "or",
    "unless",
    "offset",
    "bool",
}


def declared():
    ours = {}
    for one in vars(metrics).values():
        if isinstance(one, Counter):
            ours[one._name + "_total"] = ("counter", one._labelnames, one._documentation)
        elif isinstance(one, Histogram):
            ours[one._name] = ("histogram", one._labelnames, one._documentation)
    return ours | {name: ("gauge", labels, words) for name, (words, labels) in GAUGES.items()}


def names_in(expression):
    """The metrics that an expression reads."""
    bare = re.sub(r"\{[^}]*\}", "", expression)
    bare = re.sub(r"\[[^\]]*\]", "", bare)
    bare = re.sub(r"\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", "", bare)
    bare = re.sub(r"\boffset\s+\w+", "", bare)
    found = set(re.findall(r"(?<![\w:.$])([a-z][a-z0-9_:]*)(?!\w|:|\s*\()", bare)) - _WORDS
    return {re.sub(r"_(bucket|count|sum)$", "", name) for name in found if not re.fullmatch(r"\d\w*", name)}


def expressions():
    for rule in RULES:
        yield rule.get("alert") or rule["record"], rule["expr"]
    for file in DASHBOARDS:
        board = json.loads(file.read_text())
        for panel in board["panels"]:
            for target in panel.get("targets", ()):
                yield f"{file.stem}: {panel['title']}", target["expr"]


@pytest.fixture(scope="module")
def promtool():
    prometheus.install()
    return prometheus.find("promtool")


def run(promtool, *words):
    done = subprocess.run(
        [promtool, *words], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_table_lists_every_metric_as_it_is_declared_and_no_other():
    listed = {
        row[0]: (row[1], tuple(re.findall(r"`(\w+)`", row[2])), row[3])
        for row in re.findall(
            r"^\| `(\w+)` \| (\w+) \| ([^|]*) \| ([^|]+) \|$",
            (ROOT / "ops" / "docs" / "metrics.md").read_text(),
            re.MULTILINE,
        )
    }
    ours = declared()
    assert {name: row for name, row in listed.items() if name in ours} == {
        name: (kind, tuple(labels), words) for name, (kind, labels, words) in ours.items()
    }
    assert {name: row[:2] for name, row in listed.items() if name not in ours} == FOREIGN


@pytest.mark.parametrize(("where", "expression"), list(expressions()))
def test_an_expression_reads_metrics_that_there_are(where, expression):
    assert names_in(expression)
    assert names_in(expression) <= set(declared()) | set(FOREIGN) | RECORDED


def test_every_metric_is_read_by_a_dashboard_or_a_rule():
    read = set().union(*(names_in(expression) for _, expression in expressions()))
    assert set(declared()) - read == set()
    assert RECORDED - read == set()


@pytest.mark.parametrize("name", list(declared()))
def test_names_follow_the_conventions(name):
    kind = declared()[name][0]
    assert (kind == "counter") == name.endswith("_total")
    if kind == "histogram":
        assert name.endswith("_seconds")
    assert not {"id", "job_id", "client", "path", "job", "instance", "le"} & set(declared()[name][1])


def test_every_alert_has_a_runbook_and_every_runbook_an_alert():
    assert {file.stem for file in RUNBOOKS.glob("*.md")} - {"README"} == set(ALERTS)
    for name, rule in ALERTS.items():
        assert rule["annotations"]["runbook"] == f"ops/docs/runbooks/{name}.md"
        assert rule["labels"]["severity"] in {"page", "ticket"}
        assert {"summary", "description"} <= set(rule["annotations"])
        assert f"]({name}.md)" in (RUNBOOKS / "README.md").read_text()


@pytest.mark.parametrize("name", list(ALERTS))
def test_a_runbook_says_what_it_means_how_to_look_and_what_to_do(name):
    text = (RUNBOOKS / f"{name}.md").read_text()
    assert text.startswith(f"# {name}\n")
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == ["What it means", "How to look", "What to do"]
    assert "```console" in text


def test_every_alert_is_tested_to_fire_and_to_keep_silent():
    cases = [case for file in TESTS for case in yaml.safe_load(file.read_text())["tests"]]
    tested = {
        (check["alertname"], bool(check["exp_alerts"])) for case in cases for check in case["alert_rule_test"]
    }
    assert tested == {(name, fires) for name in ALERTS for fires in (True, False)}


def test_alerts_fire_when_they_should_and_keep_silent_when_not(promtool):
    run(promtool, "test", "rules", *map(str, TESTS))


def test_rules_and_configurations_are_valid(promtool, tmp_path):
    # The key is where compose puts it, and promtool looks whether it is there.
    (tmp_path / "metrics-key").write_text("djps_k_")
    composed = (PROMETHEUS / "prometheus.yml").read_text().replace("/run/secrets", str(tmp_path))
    (tmp_path / "composed.yml").write_text(composed.replace("rules/", f"{PROMETHEUS}/rules/"))
    run(promtool, "check", "config", str(tmp_path / "composed.yml"))
    ours = tmp_path / "prometheus.yml"
    ours.write_text(prometheus.configuration(8000, 5555))
    run(promtool, "check", "config", str(ours))


def test_prometheus_reads_what_compose_starts():
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
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


def test_names_are_told_from_functions_labels_and_words():
    assert names_in('sum by (task) (rate(a_b_bucket{c="d"}[5m])) or on (q) x:y:z5m offset 3d > 0') == {
        "a_b",
        "x:y:z5m",
    }
