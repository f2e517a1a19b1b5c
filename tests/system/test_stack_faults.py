"""What goes wrong around `python3 -m ops up`: two at once, a killed supervisor, rubbish in its files, wrong settings."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import requests
from stacks import ROOT, api_of, completes, ops, start, status, supervisor_of, surroundings

from ops.stack import ports

pytestmark = pytest.mark.system

#: Seconds in which a sentence about a setting must be there.
AT_ONCE = 15


@pytest.fixture
def environment():
    with surroundings() as found:
        yield found


@pytest.fixture
def up(environment):
    """A stack with handlers of a test's own, started twice at the same moment, behind a proxy that is not there."""
    data = Path(environment["DJPS_DATA_DIR"])
    modules = data.parent / "modules"
    modules.mkdir()
    (modules / "my_handlers.py").write_text("")
    nowhere = f"http://127.0.0.1:{ports.free()}"
    environment |= {"HTTP_PROXY": nowhere, "http_proxy": nowhere, "ALL_PROXY": nowhere}
    environment |= {"PYTHONPATH": str(modules), "HANDLERS": "my_handlers", "SIMULATED_FAILURE_RATE": "0"}
    twice = [start(environment, "up", "--detach") for _ in range(2)]
    said = [one.communicate(timeout=120)[0] for one in twice]
    try:
        yield {one.returncode: text for one, text in zip(twice, said, strict=True)}
    finally:
        ops(environment, "down")


def test_a_stack_stands_what_happens_to_it(environment, up, eventually):
    data = Path(environment["DJPS_DATA_DIR"])
    _one_of_two_starts(environment, up)
    _flask_reaches_it(environment)
    _metrics_come_back(environment, data, eventually)
    bystander = subprocess.Popen([shutil.which("sleep"), "600"], cwd=data / "run")
    try:
        _what_lost_its_supervisor_is_taken_over(environment, data)
        _a_worker_that_does_not_start_is_no_success(environment, data)
        assert "DJPS is down" in ops(environment, "down")
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def _one_of_two_starts(environment, up):
    assert set(up) == {0, 1}, up
    assert "is up already" in up[1]
    assert "Traceback" not in up[0] + up[1]
    assert {one["state"] for one in status(environment)["processes"].values()} == {"RUNNING"}
    assert completes(environment)
    # Its service listens on loopback, and is not asked through the proxy.
    assert completes(environment, "simulated")


def _flask_reaches_it(environment):
    shell = {
        name: value
        for name, value in environment.items()
        if name not in {"POSTGRES_PORT", "REDIS_PORT", "PYTHONPATH", "HANDLERS"}
    }
    listed = subprocess.run(
        [sys.executable, "-m", "flask", "--app", "wsgi", "workers", "list"],
        env=shell,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert "worker@" in listed.stdout


def _metrics_come_back(environment, data, eventually):
    shutil.rmtree(data / "metrics")
    answer = requests.get(f"{api_of(environment)}/metrics", timeout=10)
    assert answer.status_code == 200
    assert (data / "metrics").is_dir()

    def counted():
        assert completes(environment)
        text = requests.get(f"{api_of(environment)}/metrics", timeout=10).text
        return all(
            f"\n{name} 0.0\n" not in text and f"\n{name} " in text
            for name in ("jobs_created_total", "jobs_completed_total")
        )

    eventually(counted)


def _what_lost_its_supervisor_is_taken_over(environment, data):
    supervisor_of(environment).kill()
    ports_of = [int(environment[name]) for name in ("POSTGRES_PORT", "REDIS_PORT", "API_PORT")]
    end = time.monotonic() + 30
    while not all(ports.is_free(port) for port in ports_of):
        assert time.monotonic() < end, "they outlive their supervisor"
        time.sleep(0.1)
    with next((data / "redis" / "appendonlydir").glob("*.incr.aof")).open("ab") as file:
        file.write(b"rubbish\r\n" * 10)
    began = time.monotonic()
    said = ops(environment, "up", "--detach")
    assert time.monotonic() - began < 60
    assert "could not read its append-only file" in said
    assert (data / "redis" / "appendonlydir.unreadable").is_dir()
    assert completes(environment)


def _a_worker_that_does_not_start_is_no_success(environment, data):
    module = data.parent / "modules" / "my_handlers.py"
    module.write_text("raise RuntimeError('this handler is broken')\n")
    shutil.rmtree(module.parent / "__pycache__", ignore_errors=True)
    said = ops(environment, "restart", "worker", expect=1)
    assert "this handler is broken" in said
    assert "was restarted" not in said
    module.write_text("")
    assert "worker was restarted and is ready" in ops(environment, "restart", "worker")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"HANDLERS": "typo"}, "HANDLERS: cannot import 'typo': ModuleNotFoundError"),
        ({"DEFAULT_HANDLER": "nope"}, "DEFAULT_HANDLER must name a registered handler"),
        ({"REDIS_URL": "redis://:sesame@127.0.0.1:{closed}/0"}, "check REDIS_URL ("),
        ({"REDIS_PORT": "{taken}"}, "is in use; stop what listens there or set REDIS_PORT"),
        ({"NUM_WORKERS": "many"}, "NUM_WORKERS: "),
    ],
)
def test_what_cannot_work_is_one_sentence_at_once(environment, settings, sentence):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        places = {"closed": ports.free(), "taken": taken.getsockname()[1]}
        wrong = {name: value.format(**places) for name, value in settings.items()}
        began = time.monotonic()
        said = ops({**environment, **wrong}, "up", "--detach", expect=1)
    assert time.monotonic() - began < AT_ONCE
    assert sentence in said
    assert "Traceback" not in said
    assert "sesame" not in said
    assert len(said.strip().splitlines()) == 1


def test_a_server_that_does_not_start_is_named_with_what_it_said_last(environment):
    folder = Path(environment["DJPS_DATA_DIR"]) / "postgres"
    folder.mkdir(parents=True, mode=0o700)
    (folder / "PG_VERSION").write_text("9.6\n")
    began = time.monotonic()
    said = ops(environment, "up", "--detach", expect=1)
    assert time.monotonic() - began < 30
    assert "postgres does not start: " in said
    assert "FATAL" in said or "postgres: could not" in said
    assert "Traceback" not in said
    assert "was not up" in ops(environment, "down")


def test_what_holds_a_port_of_ours_is_left_alone(environment):
    """A process of another's that listens is named, not ended, and no half of a stack is left."""
    with subprocess.Popen(
        [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", environment["API_PORT"]],
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    ) as other:
        try:
            end = time.monotonic() + 20
            while ports.is_free(int(environment["API_PORT"])):
                assert time.monotonic() < end
                time.sleep(0.05)
            assert "API_PORT" in ops(environment, "up", "--detach", expect=1)
            assert psutil.Process(other.pid).is_running()
        finally:
            # It ends only by this: what a test that breaks leaves running is waited for without end.
            other.kill()
    assert "was not up" in ops(environment, "down")
