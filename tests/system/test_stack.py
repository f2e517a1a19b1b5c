"""`python3 -m ops up` and its sisters, as a newcomer types them."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest
import requests

from ops.stack import ports

pytestmark = pytest.mark.system

ROOT = Path(__file__).resolve().parents[2]
PORTS = ("API_PORT", "FLOWER_PORT", "POSTGRES_PORT", "REDIS_PORT", "HTTPBIN_PORT", "PROMETHEUS_PORT")
NAMES = {"postgres", "redis", "api", "worker", "maintenance", "beat", "flower"}
OURS = ("DATABASE_URL", "REDIS_URL", "SIMULATED_JOB_URL", "PROMETHEUS_MULTIPROC_DIR")


@pytest.fixture
def environment():
    # Not pytest's own folder: another pytest closes that to other users, and PostgreSQL is one when root tests.
    folder = tempfile.mkdtemp(prefix="djps up ")
    kept = {name: value for name, value in os.environ.items() if name not in OURS}
    chosen = {name: str(ports.free()) for name in PORTS}
    yield {**kept, **chosen, "DJPS_DATA_DIR": f"{folder}/data of mine", "RATE_LIMIT": "off"}
    shutil.rmtree(folder)


def ops(environment, *words, expect=0):
    done = subprocess.run(
        [sys.executable, "-m", "ops", *words],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert expect is None or done.returncode == expect, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_up_status_restart_of_the_dead_down_and_up_again(environment, eventually):
    try:
        said = ops(environment, "up", "--detach")
        assert "curl" in said
        found = json.loads(ops(environment, "status", "--json"))
        assert set(found["processes"]) >= NAMES
        assert {one["state"] for one in found["processes"].values()} == {"RUNNING"}
        pids = [one["pid"] for one in found["processes"].values()]
        api = found["api_url"]
        job = requests.post(f"{api}/jobs", json={"payload": {"task": "noop"}}, timeout=5).json()
        eventually(lambda: requests.get(f"{api}/jobs/{job['id']}", timeout=5).json()["status"] == "completed")
        assert requests.get(found["flower_url"], timeout=10).status_code == 200
        assert "beat was restarted" in ops(environment, "restart", "beat")
        assert "no process is named 'nobody'" in ops(environment, "restart", "nobody", expect=1)
        assert "is up already" in ops(environment, "up", expect=1)
        assert "job completed" in ops(environment, "logs", "worker")

        def beat():
            # The exit code says whether all of it runs, which it does not for a moment.
            return json.loads(ops(environment, "status", "--json", expect=None))["processes"]["beat"]

        killed = beat()["pid"]
        psutil.Process(killed).kill()
        eventually(lambda: beat()["state"] == "RUNNING" and beat()["pid"] != killed)
        assert "DJPS is down" in ops(environment, "down")
        assert not any(psutil.pid_exists(pid) for pid in pids)
        began = time.monotonic()
        ops(environment, "up", "--detach")
        assert time.monotonic() - began < 30
        again = requests.get(f"{api}/jobs/{job['id']}", timeout=5)
        assert again.json()["status"] == "completed"
    finally:
        ops(environment, "down")


def test_a_port_in_use_is_one_clear_sentence(environment):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = ops({**environment, "API_PORT": str(port)}, "up", "--detach", expect=1)
    assert f"port {port} is in use" in said
    assert "API_PORT" in said
    assert "Traceback" not in said


def test_a_database_that_is_not_there_is_one_clear_sentence(environment):
    nowhere = f"postgresql://djps:hidden@127.0.0.1:{ports.free()}/djps"
    said = ops({**environment, "DATABASE_URL": nowhere}, "up", "--detach", expect=1)
    assert "does not answer; check DATABASE_URL" in said
    assert "hidden" not in said
    assert "Traceback" not in said


def test_a_wrong_setting_is_one_clear_sentence(environment):
    said = ops({**environment, "NUM_WORKERS": "many"}, "up", expect=1)
    assert "NUM_WORKERS" in said
    assert "'many'" in said
    assert "Traceback" not in said


def test_down_without_up_says_so(environment):
    assert "was not up" in ops(environment, "down")
    assert "is not up" in ops(environment, "status", expect=1)
