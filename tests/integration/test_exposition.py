"""What a worker whose counters no API reads serves itself."""

from __future__ import annotations

import socket
from urllib.request import urlopen

import pytest

from ops.stack import ports
from tasks import exposition
from webapp.infra.telemetry import metrics

LOOPBACK = ports.LOOPBACK


@pytest.fixture
def taken_port():
    """A port that someone else has."""
    with socket.socket() as holder:
        holder.bind((LOOPBACK, 0))
        yield holder.getsockname()[1]


@pytest.fixture
def server(application):
    found = exposition.serve(LOOPBACK, ports.free())
    yield found
    found.stop()


def read(server):
    with urlopen(f"http://{LOOPBACK}:{server.port}/metrics", timeout=5) as answer:
        return answer.read().decode()


def test_a_worker_serves_its_counters_and_no_gauges(server):
    metrics.jobs_created.inc(0)
    text = read(server)
    assert "jobs_created_total" in text
    assert "job_queue_depth" not in text


def test_a_scraper_that_says_nothing_does_not_keep_the_next_one_waiting_for_ever(server):
    with socket.create_connection((LOOPBACK, server.port), 5):
        assert "jobs_created_total" in read(server)


def test_what_a_child_inherits_can_be_closed_without_stopping_anything(server, eventually):
    server.forget()
    # Here, other than in a child, the serving thread is still looking at the socket for a moment.
    eventually(lambda: ports.is_free(server.port))


def test_a_port_that_is_taken_costs_the_metrics_and_not_the_worker(taken_port, caplog):
    assert exposition.serve(LOOPBACK, taken_port) is None
    assert "worker's metrics cannot be served" in caplog.messages


def test_it_goes_on_after_a_fault_of_its_own(application, monkeypatch, eventually):
    monkeypatch.setattr(exposition, "REST", 0.01)
    real, failed = exposition.WSGIServer.serve_forever, []

    def serve_forever(server, *more):
        if not failed:
            failed.append(1)
            raise OSError(24, "Too many open files")
        real(server, *more)

    monkeypatch.setattr(exposition.WSGIServer, "serve_forever", serve_forever)
    server = exposition.serve(LOOPBACK, ports.free())
    try:
        eventually(lambda: failed)
        assert "jobs_created_total" in read(server)
    finally:
        server.stop()


def test_a_scrape_that_fails_is_one_line(server, caplog):
    server._server.handle_error(None, ("127.0.0.1", 1))
    assert caplog.messages == ["worker's metrics could not be served"]


def test_without_a_port_nothing_is_served():
    assert exposition.serve(LOOPBACK, 0) is None
