"""Real processes tell a real OTLP receiver of their requests and attempts; and go on where no one listens."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from uuid import UUID

import pytest
from collector import CLIENT, TRACE, TRACEPARENT, Collector, collecting
from listener import listening

from ops.stack import ports
from webapp.infra.telemetry.traceparent import of_attempt, read

pytestmark = pytest.mark.system

#: Jobs of a batch: more than one chunk.
MANY = 300
#: How long a process may take to send its last spans and end, seconds.
END_WITHIN = 12


@contextmanager
def tracing(fleet, eventually: Callable[..., object], url: str, **changes: str) -> Iterator[None]:
    """Has API and worker tell a collector, until the block ends."""
    before = dict(fleet.environment)
    fleet.environment |= {"OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_BSP_SCHEDULE_DELAY": "100", **changes}
    try:
        restart(fleet, eventually)
        yield
    finally:
        fleet.environment = before
        restart(fleet, eventually)


def restart(fleet, eventually: Callable[..., object]) -> None:
    for name in ("api", "worker"):
        if name in fleet.processes:
            fleet.stop(name)
    fleet.start("api", "worker")
    eventually(lambda: is_up(fleet), 60)


def is_up(fleet) -> bool:
    try:
        return fleet.http.get(f"{fleet.url}/health", timeout=2).ok and fleet.live_workers() == 2
    except OSError:
        return False


@pytest.fixture(scope="module")
def collector(fleet, eventually: Callable[..., object]) -> Iterator[Collector]:
    with collecting() as made, tracing(fleet, eventually, made.url):
        yield made


def submit(fleet, path: str = "/jobs", **body: object) -> dict:
    answer = fleet.http.post(
        f"{fleet.url}{path}",
        json=body,
        headers={"traceparent": TRACEPARENT, "X-Request-ID": "from-outside"},
        timeout=10,
    )
    assert answer.ok, answer.text
    assert answer.headers["X-Request-ID"] == "from-outside"
    return answer.json()


def request_of(collector: Collector, span_id: str) -> object:
    """The span of a request."""
    return next((one for one in collector.spans if one.span_id == span_id), None)


def test_one_trace_leads_from_the_request_to_every_attempt(fleet, collector, eventually):
    job = fleet.wait_for(submit(fleet, payload={"task": "second-try"}))
    assert (job["status"], job["attempt"]) == ("completed", 2)
    eventually(lambda: len(collector.of_job(job["id"])) == 2)
    first, second = collector.of_job(job["id"])
    request = eventually(lambda: request_of(collector, first.parent_id))
    assert (request.service, request.name, request.kind) == ("djps-api", "POST /jobs", "SERVER")
    assert (request.trace_id, request.parent_id) == (TRACE, CLIENT)
    assert request.attributes["http.response.status_code"] == 201
    for span in (first, second):
        assert (span.service, span.name, span.kind) == ("djps-worker", "run second-try", "CONSUMER")
        assert (span.trace_id, span.parent_id) == (TRACE, request.span_id)
    assert first.links == []
    assert second.links == [(TRACE, first.span_id)]
    assert (first.error, second.error, request.error) == ("not at first", None, None)
    assert first.attributes["error.type"] == "webapp.jobs.errors.Retry"
    assert [(one.attempt, one.attributes["djps.job.outcome"]) for one in (first, second)] == [
        (1, "failed"),
        (2, "completed"),
    ]
    assert {one.attributes["djps.request.id"] for one in (request, first, second)} == {"from-outside"}
    assert job["result"] == {"traceparent": f"00-{TRACE}-{second.span_id}-01"}


def test_every_line_of_every_attempt_names_request_trace_and_span(fleet, collector, eventually):
    job = fleet.wait_for(submit(fleet, payload={"task": "second-try"}))
    eventually(lambda: len(collector.of_job(job["id"])) == 2)
    spans = [one.span_id for one in collector.of_job(job["id"])]

    def lines() -> list[dict]:
        text = (fleet.folder / "worker.log").read_text()
        return [found for line in text.splitlines() if (found := json.loads(line)).get("job_id") == job["id"]]

    messages = ["trying", "job failed and will be retried", "trying", "job completed"]
    eventually(lambda: [line["message"] for line in lines()] == messages)
    for line, span in zip(lines(), [spans[0], spans[0], spans[1], spans[1]], strict=True):
        assert (line["request_id"], line["trace_id"], line["span_id"]) == ("from-outside", TRACE, span)


def test_each_job_of_a_batch_has_a_span_of_its_own(fleet, collector, eventually):
    answer = submit(fleet, "/jobs/batch", jobs=[{"payload": {"task": "noop"}}] * MANY)
    ids = {item["id"] for item in answer["items"]}
    assert answer["created"] == len(ids) == MANY

    def attempts() -> list:
        return [one for one in collector.spans if one.attributes.get("djps.job.id") in ids]

    eventually(lambda: len(attempts()) == MANY, 40)
    assert {one.attributes["djps.job.id"] for one in attempts()} == ids
    assert len({one.span_id for one in attempts()}) == MANY
    (parent,) = {one.parent_id for one in attempts()}
    assert eventually(lambda: request_of(collector, parent)).name == "POST /jobs/batch"
    assert {one.attributes["djps.request.id"] for one in attempts()} == {"from-outside"}


def test_the_attempt_after_a_killed_one_links_to_it(fleet, collector, eventually):
    job = submit(fleet, payload={"task": "sleep", "seconds": 1})
    os.kill(fleet.child_running(job), signal.SIGKILL)
    assert fleet.wait_for(job)["attempt"] == 2
    eventually(lambda: collector.of_job(job["id"]))
    (span,) = collector.of_job(job["id"])
    lost = of_attempt(UUID(job["id"]), 1, TRACEPARENT)
    assert (span.attempt, span.links) == (2, [(TRACE, lost.fields["span_id"])])


class Called(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.seen.append((self.path, self.headers["traceparent"]))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Says nothing."""


def test_calls_and_callbacks_go_on_with_the_trace(fleet, collector, eventually):
    with listening(Called, fleet.receiver_port) as receiver:
        receiver.seen = []
        call = {"task": "http", "url": f"{receiver.url}/work", "json": {}}
        job = fleet.wait_for(submit(fleet, payload=call, callback_url=f"{receiver.url}/told"))
        eventually(lambda: len(receiver.seen) == 2)
    noted = fleet.rows("SELECT callback_job_id FROM jobs WHERE id = %s", job["id"])[0][0]
    for job_id, (path, sent) in zip((job["id"], str(noted)), receiver.seen, strict=True):
        (span,) = eventually(lambda job_id=job_id: collector.of_job(job_id))
        assert (read(sent).fields, read(sent).sampled) == ({"trace_id": TRACE, "span_id": span.span_id}, True)
        assert path == ("/work" if job_id == job["id"] else "/told")


def test_a_process_that_ends_sends_what_it_has(fleet, eventually):
    # Nothing is sent by itself: the next time would be in a minute.
    slow = {"OTEL_BSP_SCHEDULE_DELAY": "60000"}
    with collecting() as made, tracing(fleet, eventually, made.url, **slow):
        job = fleet.wait_for(submit(fleet, payload={"task": "noop"}))
        assert made.spans == []
        took = fleet.stop("worker")
        assert [one.name for one in made.of_job(job["id"])] == ["run noop"]
        took = max(took, fleet.stop("api"))
        assert "POST /jobs" in {one.name for one in made.of_trace(TRACE)}
        assert took < END_WITHIN


def pace_of(fleet, eventually: Callable[..., object]) -> float:
    """How long a batch takes, seconds; and a single job after it starts at once."""
    began = time.monotonic()
    body = {"jobs": [{"payload": {"task": "noop"}}] * MANY}
    assert fleet.http.post(f"{fleet.url}/jobs/batch", json=body, timeout=20).json()["created"] == MANY
    eventually(lambda: fleet.unfinished() == 0, 40)
    took = time.monotonic() - began
    began = time.monotonic()
    fleet.wait_for(fleet.post("noop"))
    assert time.monotonic() - began < 1
    return took


@pytest.mark.parametrize("collector_is", ["away", "silent"])
def test_without_a_collector_jobs_go_on_as_before(fleet, eventually, collector_is, silent_collector):
    usual = pace_of(fleet, eventually)
    url = f"http://{ports.LOOPBACK}:{ports.free()}" if collector_is == "away" else silent_collector
    small = {"OTEL_BSP_MAX_QUEUE_SIZE": "64", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "16"}
    with tracing(fleet, eventually, url, **small):
        pace_of(fleet, eventually)
        # A machine that others share is uneven; one call that waited for the collector would cost ten seconds.
        assert pace_of(fleet, eventually) < usual + 3
        assert fleet.stop("worker") < END_WITHIN
    assert fleet.unfinished() == 0


@pytest.fixture
def silent_collector() -> Iterator[str]:
    """Takes connections and never answers."""
    with socket.socket() as listener:
        listener.bind((ports.LOOPBACK, 0))
        listener.listen(64)
        yield f"http://{ports.LOOPBACK}:{listener.getsockname()[1]}"
