"""The fixture `djps`, in a pytest of a user's own: what the page on testing handlers does not show."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.system

ROOT = Path(__file__).resolve().parents[2]
#: What a user's shell has; and what has the suite measure what runs.
KEPT = {name: value for name, value in os.environ.items() if name == "PATH" or name.startswith("COVERAGE_")}
CONFTEST = 'pytest_plugins = ["tasks.testing.plugin"]\n'
TESTS = """
import json
import logging
import os
import threading
import time
import warnings
from wsgiref.simple_server import make_server

import pytest
import requests

from tasks.testing.platform import NotDrained, Refused
from webapp.jobs import Discard, Snooze, handler

seen = []


@handler("mine.note")
def note(payload, context):
    seen.append(payload["n"])


@handler("mine.endless")
def endless(payload, context):
    raise Snooze(0)


@handler("mine.discarded")
def discarded(payload, context):
    raise Discard("no use")


@handler("mine.more")
def more(payload, context):
    answer = requests.post(payload["url"] + "/jobs", json={"payload": {"task": "mine.note", "n": "inner"}}, timeout=5)
    assert answer.status_code == 201


@handler("mine.slow", timeout=0.2)
def slow(payload, context):
    time.sleep(30)


@handler("mine.told")
def told(payload, context):
    seen.append(context.job_id)


@pytest.fixture(autouse=True)
def forget():
    seen.clear()


def test_the_most_urgent_runs_first_and_each_once(djps):
    for n in range(250):
        djps.submit({"task": "mine.note", "n": n}, priority=n // 125)
    assert len(djps.drain()) == 250
    assert seen == [*range(125, 250), *range(125)]
    assert djps.drain() == []


def test_every_test_begins_without_a_job(djps):
    assert djps.jobs() == []


def test_what_keeps_coming_is_noticed(djps, monkeypatch):
    monkeypatch.setattr("tasks.testing.platform.MOST_ATTEMPTS", 5)
    djps.submit({"task": "mine.endless"})
    with pytest.raises(NotDrained):
        djps.drain(to_the_end=True)


def test_a_discarded_job_is_a_dead_letter(djps):
    djps.submit({"task": "mine.discarded"}, max_retries=5)
    assert [job["status"] for job in djps.drain()] == ["failed"]
    (letter,) = requests.get(djps.url + "/dlq/letters", timeout=5).json()["items"]
    assert letter["reason"] == "discarded"


@pytest.mark.parametrize("inline", [False, True])
def test_a_job_may_submit_jobs(djps, inline):
    if inline:
        with djps.inline():
            djps.submit({"task": "mine.more", "url": djps.url})
    else:
        djps.submit({"task": "mine.more", "url": djps.url})
        assert len(djps.drain()) == 2
    assert seen == ["inner"]
    assert {job["status"] for job in djps.jobs()} == {"completed"}


def test_time_limits_work(djps):
    djps.submit({"task": "mine.slow"}, max_retries=0)
    began = time.monotonic()
    (job,) = djps.drain()
    assert time.monotonic() - began < 10
    assert "time limit" in job["last_error"] or "Timeout" in job["last_error"]


def test_an_expired_job_never_runs(djps):
    job = djps.submit({"task": "mine.note", "n": 1}, expires_at="2099-01-01T00:00:00Z", delay=60)
    djps.advance(100 * 366 * 86_400)
    assert djps.drain() == []
    assert djps.job(job["id"])["status"] == "cancelled"
    assert seen == []


def test_a_callback_is_a_job_that_drain_runs(djps):
    told = []

    def receive(environ, start_response):
        told.append(json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))))
        start_response("204 No Content", [])
        return []

    server = make_server("127.0.0.1", 0, receive)
    thread = threading.Thread(target=server.handle_request, daemon=True)
    thread.start()
    djps.allow_calls(f"127.0.0.1:{server.server_port}")
    job = djps.submit({"task": "mine.note", "n": 1}, callback_url=f"http://127.0.0.1:{server.server_port}/ended")
    assert [(one["task"], one["status"]) for one in djps.drain()] == [("mine.note", "completed"), ("http", "completed")]
    thread.join()
    server.server_close()
    assert [job["id"] in json.dumps(one) for one in told] == [True]


def test_what_is_wrong_is_said(djps):
    with pytest.raises(Refused, match="422: payload.task: must name a registered handler .* did you mean 'mine.note'"):
        djps.submit({"task": "mine.nte"})
    with pytest.raises(Refused, match="422: .*priority"):
        djps.submit({"task": "mine.note"}, priority=11)
    with pytest.raises(Refused, match="422"):
        djps.jobs(status="loud")
    with pytest.raises(KeyError):
        djps.job("01a20af4-1c53-716c-9a00-04d2b42b60c5")
    with pytest.raises(ValueError, match="the port of 'nowhere:0' must be 1 to 65535"):
        djps.allow_calls("nowhere:0")
    with pytest.raises(TypeError, match="a payload is a mapping such as .* \\(given: 'x'\\)"):
        djps.submit("x")
    with pytest.raises(TypeError, match="by a number of seconds \\(given: 'x'\\)"):
        djps.advance("x")
    with pytest.raises(ValueError, match="more than 0 seconds"):
        djps.advance(0)


def test_this_process_is_left_as_it_was(djps, caplog):
    logging.getLogger("mine").warning("by %s", "me")
    assert caplog.records[0].filename == "test_mine.py"
    assert caplog.records[0].threadName == "MainThread"
    assert threading.excepthook is not None
    with pytest.warns(UserWarning):
        warnings.warn("mine", stacklevel=1)
    assert os.environ["DATABASE_URL"] == "sqlite:///of-the-application"
"""


def pytest_in(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=folder,
        env={**KEPT, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_an_applications_own_suite_runs_with_it(tmp_path):
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_mine.py").write_text(TESTS)
    done = pytest_in(
        tmp_path, DATABASE_URL="sqlite:///of-the-application", NUM_WORKERS="many", REDIS_URL="nowhere"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{TESTS.count('def test_') + 1} passed" in done.stdout


def test_a_module_that_is_not_there_is_named(tmp_path):
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_mine.py").write_text("def test_x(djps): pass\n")
    done = pytest_in(tmp_path, HANDLERS="typo")
    assert done.returncode == 1
    assert "HANDLERS: cannot import 'typo'" in done.stdout
