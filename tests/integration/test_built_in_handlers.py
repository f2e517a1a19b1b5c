from __future__ import annotations

import logging
import threading
import time
from http.server import BaseHTTPRequestHandler
from uuid import UUID

import pytest
import requests
from listener import listening

from tasks.handlers import demo, simulated
from webapp.jobs import Cancelled, Discard, JobContext

CONTEXT = JobContext(UUID(int=7), 3, 2, 0.0, logging.getLogger("test"))


@pytest.fixture
def service():
    """An outside service that answers with the status in its path, remembers what it was sent, and may be slow."""
    asked = []
    released = threading.Event()

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(dict(self.headers))
            status = self.path.strip("/")
            if status == "slow":
                released.wait(10)
                status = "200"
            self.send_response(int(status))
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            """Says nothing."""

    with listening(Answer) as server:
        server.asked = asked
        yield server
        released.set()


@pytest.fixture
def call(service, settings, monkeypatch):
    """Runs `simulated` against the service."""

    def once(path, **changes):
        url = f"http://127.0.0.1:{service.server_port}/{path}"
        changed = {"simulated_job_url": url, "simulated_failure_rate": 0.0} | changes
        monkeypatch.setattr(simulated, "current", lambda: settings.model_copy(update=changed))
        return simulated.simulated({}, CONTEXT)

    return once


def test_simulated_calls_its_service_and_says_who_asks(call, service):
    assert call("200") == {"status_code": 200}
    assert (service.asked[0]["X-Job-Id"], service.asked[0]["X-Job-Attempt"]) == (str(UUID(int=7)), "3")


@pytest.mark.parametrize("status", [404, 429, 500, 503])
def test_simulated_fails_when_its_service_does(call, status):
    with pytest.raises(requests.HTTPError, match=str(status)):
        call(str(status))


def test_simulated_gives_up_after_its_timeout(call):
    started = time.monotonic()
    with pytest.raises(requests.Timeout):
        call("slow", simulated_timeout=0.2)
    assert time.monotonic() - started < 2


def test_simulated_fails_when_no_one_is_there(call, closed_port):
    with pytest.raises(requests.ConnectionError):
        call("", simulated_job_url=f"http://127.0.0.1:{closed_port}/")


def test_simulated_fails_its_share_without_a_call(call, service):
    with pytest.raises(simulated.SimulatedFailure, match=r"rate 1"):
        call("200", simulated_failure_rate=1.0)
    assert service.asked == []


def test_sleep_stops_when_its_cancellation_is_asked(monkeypatch):
    monkeypatch.setattr(demo, "LOOK_EVERY", 0.01)
    looks = iter([False, True])
    told = []
    context = CONTEXT._replace(is_cancelled=lambda: next(looks), report=lambda *how: told.append(how))
    with pytest.raises(Cancelled):
        demo.sleep({"seconds": 60}, context)
    ((done, total, note),) = told
    assert 0 < done < total == 60
    assert note == ""


def test_sleep_sleeps_and_says_so():
    started = time.monotonic()
    assert demo.sleep({"seconds": 0.05}, CONTEXT) == {"slept": 0.05}
    assert time.monotonic() - started >= 0.05


@pytest.mark.parametrize("seconds", [-1, 3_601, "1", None, True, [1]])
def test_sleep_discards_what_is_no_time(seconds):
    with pytest.raises(Discard, match=r"payload.seconds must be a number from 0 to 3600"):
        demo.sleep({"seconds": seconds}, CONTEXT)


def test_noop_does_nothing():
    assert demo.noop({}, CONTEXT) is None


def test_fail_fails():
    with pytest.raises(demo.AlwaysFails):
        demo.fail({}, CONTEXT)
