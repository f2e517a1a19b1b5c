"""A real Prometheus over a whole system: every query of the dashboards and rules is answered."""

from __future__ import annotations

import json
import math
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
import yaml

from ops.stack import ports, prometheus

pytestmark = pytest.mark.system

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.prefix) / "bin"
DASHBOARDS = ROOT / "ops" / "grafana" / "dashboards"
RUNBOOKS = ROOT / "ops" / "docs" / "runbooks"
PATIENCE = 30


def rules():
    for file in sorted((ROOT / "ops" / "prometheus" / "rules").glob("*.yml")):
        for group in yaml.safe_load(file.read_text())["groups"]:
            for rule in group["rules"]:
                # An alert that is silent answers nothing; what it compares must be there, though not for six hours.
                # What silences it must be there as well.
                bare = re.sub(r" (>|<|==) [\d.]+( \* [\d.]+)?(?! \))", "", rule["expr"])
                bare = bare.replace(" offset 6h", "").replace("unless on", "and on")
                yield rule.get("alert") or rule["record"], bare


def panels():
    given = {"$__range": "5m", "$__rate_interval": "1m", "$task": "again"}
    for file in sorted(DASHBOARDS.glob("*.json")):
        for panel in json.loads(file.read_text())["panels"]:
            for target in panel.get("targets", ()):
                expression = target["expr"]
                for name, value in given.items():
                    expression = expression.replace(name, value)
                yield f"{file.stem}: {panel['title']}, {target['legendFormat']}", expression


class Watcher:
    """A Prometheus that scrapes the fleet and a Flower of it, each second."""

    def __init__(self, fleet, folder):
        prometheus.install()
        self.port, self.flower_port = ports.free(), ports.free()
        self.url = f"http://{ports.LOOPBACK}:{self.port}"
        configured = folder / "prometheus.yml"
        # Some rules are looked at once a minute, at a second that depends on their path; here there is no time for that.
        (folder / "rules").mkdir()
        for file in prometheus.RULES.glob("*.yml"):
            quick = re.sub(r"^ +interval: .*\n", "", file.read_text(), flags=re.MULTILINE)
            (folder / "rules" / file.name).write_text(quick)
        text = prometheus.configuration(fleet.api_port, self.flower_port, interval="1s")
        configured.write_text(text.replace(str(prometheus.RULES), str(folder / "rules")))
        celery = [str(BIN / "celery"), "-A", "tasks", "--quiet", "flower"]
        commands = (
            prometheus.command(prometheus.find(), configured, folder / "figures", self.port),
            [*celery, f"--address={ports.LOOPBACK}", f"--port={self.flower_port}"],
        )
        environment = fleet.environment | {"FLOWER_BASIC_AUTH": "ada:sesame"}
        with (folder / "watcher.log").open("ab") as log:
            self.processes = [
                subprocess.Popen(command, env=environment, cwd=ROOT, stdout=log, stderr=log)
                for command in commands
            ]

    def ask(self, expression):
        """The values of an instant query that are numbers."""
        answer = requests.get(f"{self.url}/api/v1/query", params={"query": expression}, timeout=10)
        assert answer.status_code == 200, (expression, answer.text)
        values = [float(one["value"][1]) for one in answer.json()["data"]["result"]]
        return [value for value in values if not math.isnan(value)]

    def firing(self):
        return {one["labels"]["alertname"] for one in self.alerts()}

    def alerts(self):
        found = requests.get(f"{self.url}/api/v1/alerts", timeout=10).json()["data"]["alerts"]
        return [one for one in found if one["state"] == "firing"]

    def dying(self):
        """The tasks whose dead letters grow."""
        return {
            value["labels"]["task"]
            for value in self.alerts()
            if value["labels"]["alertname"] == "DeadLettersGrowing"
        }

    def stop(self):
        for process in self.processes:
            process.kill()
            process.wait(20)


@pytest.fixture(scope="module")
def watcher(fleet, tmp_path_factory, eventually):
    made = Watcher(fleet, tmp_path_factory.mktemp("watcher"))
    try:
        eventually(lambda: _answers(f"{made.url}/-/ready"), PATIENCE)
        eventually(lambda: _answers(f"http://127.0.0.1:{made.flower_port}/healthcheck"), PATIENCE)
        yield made
    finally:
        made.stop()


def _answers(url):
    try:
        return requests.get(url, timeout=2).status_code == 200
    except requests.RequestException:
        return False


def run_every_outcome(fleet):
    jobs = [fleet.post("noop", number=number) for number in range(20)]
    jobs += [fleet.post(task) for task in ("again", "no-use", "poison")]
    key = f"watched {jobs[0]['id']}"
    fleet.post("noop", key=key)
    fleet.post("noop", key=key)
    assert fleet.http.post(f"{fleet.url}/jobs", json={}, timeout=10).status_code == 422
    refuse_one(fleet)
    for job in jobs:
        fleet.wait_for(job)


def refuse_one(fleet):
    """Has a queue refuse a second job of a key."""
    queue, given = (
        f"{fleet.url}/queues/mail",
        {"payload": {"task": "noop"}, "queue": "mail", "key": "watched", "delay": 60},
    )
    assert fleet.http.put(queue, json={"keys": {"max_depth": 1}}, timeout=10).status_code == 200
    first, second = (fleet.http.post(f"{fleet.url}/jobs", json=given, timeout=10) for _ in range(2))
    assert (first.status_code, second.status_code) == (201, 429)
    assert fleet.http.post(f"{fleet.url}/jobs/{first.json()['id']}/cancel", timeout=10).status_code == 200
    assert fleet.http.delete(queue, timeout=10).status_code == 200


def test_every_query_of_dashboards_and_rules_is_answered(fleet, watcher, eventually):
    keep_firing(fleet)
    # A rate needs a counter to grow after it was first seen, so each outcome comes twice.
    for _ in range(2):
        run_every_outcome(fleet)
        seen = fleet.metric("jobs_failed_total")
        eventually(lambda seen=seen: watcher.ask("jobs_failed_total") == [seen])
    # The fleet has no read replica; test_read_replica.py looks at what it counts.
    asked = [
        (where, expression)
        for where, expression in (*panels(), *rules())
        if not re.search(r"read_replica_|database_list_reads", expression)
    ]
    assert len(asked) > 80

    def unanswered():
        return [where for where, expression in asked if not watcher.ask(expression)]

    # Some panels show what is paused or limited, and nothing else.
    with held(fleet, "queues/default"), held(fleet, "tasks/noop"):
        end = time.monotonic() + PATIENCE
        while (left := unanswered()) and time.monotonic() < end:
            continue
    fleet.http.delete(f"{fleet.url}/schedules/watched", timeout=10)
    assert left == []


def keep_firing(fleet):
    """Makes a schedule that fires each second."""
    spec = {"every": 1, "job": {"payload": {"task": "noop"}}, "overlap": "allow_all"}
    assert fleet.http.put(f"{fleet.url}/schedules/watched", json=spec, timeout=10).status_code in {200, 201}


@contextmanager
def held(fleet, target):
    """Limits a queue or a task, and pauses it."""
    assert fleet.http.put(f"{fleet.url}/{target}", json={"concurrency": 2}, timeout=10).status_code == 200
    assert fleet.http.post(f"{fleet.url}/{target}/pause", timeout=10).status_code == 200
    try:
        yield
    finally:
        assert fleet.http.post(f"{fleet.url}/{target}/resume", timeout=10).status_code == 200
        assert fleet.http.delete(f"{fleet.url}/{target}", timeout=10).status_code == 200


def test_the_tasks_to_choose_from_are_those_that_are_registered(watcher):
    (variable,) = json.loads((DASHBOARDS / "task.json").read_text())["templating"]["list"]
    metric, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]).groups()
    answer = requests.get(
        f"{watcher.url}/api/v1/label/{label}/values", params={"match[]": metric}, timeout=10
    )
    assert {"noop", "sleep", "fail", "simulated", "send-email"} <= set(answer.json()["data"])


def test_flower_asks_who_it_is_and_is_scraped_all_the_same(watcher, eventually):
    flower = f"http://127.0.0.1:{watcher.flower_port}"
    assert requests.get(f"{flower}/workers", timeout=10).status_code == 401
    assert requests.get(f"{flower}/workers", auth=("ada", "wrong"), timeout=10).status_code == 401
    assert requests.get(f"{flower}/workers", auth=("ada", "sesame"), timeout=10).status_code == 200
    eventually(lambda: watcher.ask('up{job="flower"} == 1'))
    # What Flower counts is scraped from Flower, and nowhere else.
    eventually(lambda: watcher.ask("flower_worker_online"), PATIENCE)
    assert watcher.ask('{__name__=~"flower_.*",job="djps-api"}') == []
    assert watcher.ask('{__name__=~"job_.*",job="flower"}') == []


def lines_of(watcher):
    """Flower's table of tasks, the newest first."""
    table = {"draw": 1, "start": 0, "length": 10_000, "order[0][column]": 0, "order[0][dir]": "desc"}
    table |= {"columns[0][data]": "received", "search[value]": ""}
    answer = requests.get(
        f"http://127.0.0.1:{watcher.flower_port}/tasks/datatable",
        params=table,
        auth=("ada", "sesame"),
        timeout=10,
    )
    return answer.json()["data"]


def test_flower_shows_a_job_by_its_id_and_the_name_of_its_task(fleet, watcher, eventually):
    posted = {}

    def shown():
        # Flower asks for events every five seconds, and shows what ran since.
        posted.update((fleet.post(task, seconds=0)["id"], task) for task in ("sleep", "no-use"))
        seen = {row["uuid"]: (row["name"], row["state"]) for row in lines_of(watcher)}
        return {seen[one] for one in seen.keys() & posted.keys() if seen[one][0] == posted[one]}

    eventually(lambda: shown() >= {("sleep", "SUCCESS"), ("no-use", "FAILURE")}, PATIENCE)


def test_flower_shows_messages_and_not_jobs_as_the_page_says(fleet, watcher, eventually):
    def hears():
        fleet.wait_for(fleet.post("sleep", seconds=0))
        return any(row["name"] == "sleep" for row in lines_of(watcher))

    eventually(hears, PATIENCE)
    known = {row["uuid"] for row in lines_of(watcher)}
    body = {"jobs": [{"payload": {"task": "again"}, "tags": ["flower"]}] * 100}
    made = fleet.http.post(f"{fleet.url}/jobs/batch", json=body, timeout=10).json()["items"]
    # A job that a slow chunk hands back is claimed again, so attempts may be three; retries are not.
    assert {(ended["status"], ended["retry_count"]) for ended in map(fleet.wait_for, made)} == {("failed", 1)}

    def states():
        rows = [row for row in lines_of(watcher) if row["name"] == "again" and row["uuid"] not in known]
        return Counter(row["state"] for row in rows)

    # What was tried again is told as that; a hundred jobs that failed are a few messages that did.
    eventually(lambda: states().keys() >= {"RETRY", "FAILURE"}, PATIENCE)
    assert states()["FAILURE"] < len(made)
    # The page says to look here instead.
    asked = {"status": "failed", "tag": "flower", "limit": 1}
    assert fleet.http.get(f"{fleet.url}/jobs", params=asked, timeout=10).json()["total"] == len(made)


def test_a_stopped_worker_with_due_jobs_fires_within_a_minute_and_a_new_one_ends_it(
    fleet, watcher, eventually
):
    eventually(lambda: "NoLiveWorker" not in watcher.firing(), 60)
    fleet.stop("worker")
    job = fleet.post("noop")
    try:
        eventually(lambda: "NoLiveWorker" in watcher.firing(), 60)
    finally:
        fleet.start("worker")
    fleet.wait_for(job)
    eventually(lambda: "NoLiveWorker" not in watcher.firing(), 30)


def test_a_filled_dead_letter_queue_fires_within_a_minute_and_its_runbook_ends_it(fleet, watcher, eventually):
    everything = f"{fleet.url}/dlq/discard"
    assert fleet.http.post(everything, json={"all": True}, timeout=10).status_code == 200
    eventually(lambda: watcher.ask('dead_letters_open{task="fail"} == 0'), 60)
    assert "fail" not in watcher.dying()
    body = {"jobs": [{"payload": {"task": "fail"}, "max_retries": 0}] * 50}
    assert fleet.http.post(f"{fleet.url}/jobs/batch", json=body, timeout=10).json()["created"] == 50
    eventually(lambda: "fail" in watcher.dying(), 60)
    eventually(lambda: watcher.ask('dead_letters_open{task="fail"} == 50'))
    # The requests are those that the runbook prints.
    told = [
        (path, json.loads(body.replace("TASK", "fail")))
        for path, body in re.findall(
            r"http://127\.0\.0\.1:8000(/dlq/\w+) .*\n.*-d '(.*)'",
            (RUNBOOKS / "DeadLettersGrowing.md").read_text(),
        )
    ]
    assert [path for path, _ in told] == ["/dlq/requeue", "/dlq/requeue", "/dlq/discard"]
    for path, body in told:
        answer = fleet.http.post(f"{fleet.url}{path}", json=body, timeout=10)
        assert answer.status_code == 200, answer.text
        assert answer.json()["matched"] > 0 or path == "/dlq/discard"
    # What the rehearsal requeued is moved to the dead letter queue again.
    path, body = told[-1]
    eventually(lambda: watcher.ask('dead_letters_open{task="fail"} > 0'), 60)
    eventually(lambda: fleet.unfinished() == 0, PATIENCE)
    assert fleet.http.post(f"{fleet.url}{path}", json=body, timeout=10).json()["changed"] > 0
    eventually(lambda: "fail" not in watcher.dying(), 60)


def test_a_killed_redis_fires_within_a_minute_and_a_new_one_ends_it(fleet, watcher, eventually):
    fleet.stop("redis", signal.SIGKILL)
    job = fleet.post("noop")
    try:
        eventually(lambda: "RedisDown" in watcher.firing(), 60)
    finally:
        fleet.start("redis")
    eventually(lambda: not watcher.firing() & {"RedisDown", "NoLiveWorker", "BeatSilent"}, 30)
    fleet.wait_for(job, "completed")


def test_a_worker_without_an_api_on_its_host_serves_what_it_counts(fleet, tmp_path, eventually):
    port = ports.free()
    elsewhere = {
        "PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "metrics"),
        "DJPS_DATA_DIR": str(tmp_path),
        "WORKER_METRICS_PORT": str(port),
    }
    command = [*fleet.commands["worker"]]
    command[command.index("worker@%h")] = "elsewhere@%h"
    url = f"http://127.0.0.1:{port}/metrics"
    with (tmp_path / "worker.log").open("wb") as log:
        worker = subprocess.Popen(
            command,
            env=fleet.environment | elsewhere,
            cwd=ROOT,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        eventually(lambda: _answers(url), PATIENCE)

        def completed():
            fleet.post("noop")
            return re.search(r"^jobs_completed_total [1-9]", requests.get(url, timeout=5).text, re.MULTILINE)

        eventually(completed, PATIENCE)
    finally:
        worker.terminate()
        worker.wait(PATIENCE)
    # No child of the worker holds on to the port.
    assert ports.is_free(port)
