"""`python3 -m ops up` and its sisters, as a newcomer types them."""

from __future__ import annotations

import json
import socket
import time

import psutil
import pytest
import requests
from stacks import ops, status, surroundings

from ops.stack import ports

pytestmark = pytest.mark.system

NAMES = {"postgres", "redis", "api", "worker", "maintenance", "beat", "flower"}


@pytest.fixture
def environment():
    with surroundings() as found:
        yield found


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
        assert found["database_url"] == (
            f"postgresql+psycopg2://djps:***@127.0.0.1:{environment['POSTGRES_PORT']}/djps"
        )
        assert "djps:djps@" not in said
        assert "beat was restarted and is ready" in ops(environment, "restart", "beat")
        assert "no process is named 'nobody'" in ops(environment, "restart", "nobody", expect=1)
        assert "is up already" in ops(environment, "up", expect=1)
        assert "job completed" in ops(environment, "logs", "worker")

        def beat():
            return status(environment)["processes"]["beat"]

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
    assert "does not answer; check DATABASE_URL (" in said
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
