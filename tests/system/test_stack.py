"""`python3 -m ops up` and its sisters, as a newcomer types them."""

from __future__ import annotations

import json
import signal
import socket
import threading
import time
from pathlib import Path

import psutil
import psycopg2
import pytest
import requests
from redis import Redis
from redis.exceptions import AuthenticationError
from stacks import PATIENCE, api_of, ops, start, status, surroundings

from ops.stack import passwords, ports, postgres

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
        _its_commands_reach_it(environment, job["id"])
        pids = [one["pid"] for one in status(environment)["processes"].values()]

        def beat():
            return status(environment)["processes"]["beat"]

        killed = beat()["pid"]
        psutil.Process(killed).kill()
        eventually(lambda: beat()["state"] == "RUNNING" and beat()["pid"] != killed)
        _its_servers_ask_for_a_password_of_their_own(environment)
        assert "DJPS is down" in ops(environment, "down")
        assert not any(psutil.pid_exists(pid) for pid in pids)
        # As a folder of a release that made none, and as one whose passwords were lost.
        for name in ("postgres", "redis"):
            passwords.file_of(Path(environment["DJPS_DATA_DIR"]), name).unlink()
        began = time.monotonic()
        assert "giving the database a new password" in ops(environment, "up", "--detach")
        # The suite's parts run side by side; alone it takes seven.
        assert time.monotonic() - began < 60
        again = requests.get(f"{api}/jobs/{job['id']}", timeout=5)
        assert again.json()["status"] == "completed"
    finally:
        ops(environment, "down")


def _its_servers_ask_for_a_password_of_their_own(environment):
    """One that is made at random, that no other user of the machine may read, and that no list of processes shows."""
    data = Path(environment["DJPS_DATA_DIR"])
    kept = {name: passwords.kept(data, name) for name in ("postgres", "redis")}
    assert len({*kept.values(), "djps"}) == 3
    modes = {file.stat().st_mode & 0o777 for file in (data / "secrets").iterdir()}
    assert modes == {0o600}
    shown = " ".join(" ".join(one.info["cmdline"] or []) for one in psutil.process_iter(["cmdline"]))
    assert not any(password in shown for password in kept.values())
    port = int(environment["POSTGRES_PORT"])
    postgres.connect(port, kept["postgres"]).close()
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        postgres.connect(port, "djps")
    with pytest.raises(AuthenticationError), Redis(port=int(environment["REDIS_PORT"])) as stranger:
        stranger.ping()


def _its_commands_reach_it(environment, job_id):
    """Commands of a shell that has none of the stack's ports, or wrong ones; `restart all` leaves the servers alone."""
    elsewhere = {name: value for name, value in environment.items() if not name.endswith("_PORT")}
    elsewhere |= {"POSTGRES_PORT": str(ports.free()), "DATABASE_URL": "postgresql://x@127.0.0.1:1/x"}
    assert job_id in ops(elsewhere, "jobs", "list")
    assert ops(elsewhere, "jobs", "submit", '{"task": "noop"}', "--wait").strip().endswith(" completed")
    assert "(head)" in ops(elsewhere, "db", "current")
    lines = [json.loads(line) for line in ops(elsewhere, "logs", "--job", job_id).splitlines()]
    assert {one["process"] for one in lines} >= {"worker"}
    assert all(one.get("job_id") == job_id or job_id in json.dumps(one) for one in lines)
    before = status(environment)["processes"]
    said = ops(elsewhere, "restart", "all")
    assert said.count(" was restarted and is ready") == len(before) - 2
    assert "postgres and redis went on" in said
    after = status(environment)["processes"]
    assert {name for name in before if before[name]["pid"] == after[name]["pid"]} == {"postgres", "redis"}
    assert "there is no log named 'wroker'; did you mean 'worker'?" in ops(
        elsewhere, "logs", "wroker", expect=1
    )


def test_handlers_that_change_are_reloaded_and_broken_ones_are_not(environment, tmp_path):
    file = tmp_path / "changing_handlers.py"

    def write(body):
        file.write_text(
            f'from webapp.jobs import handler\n\n@handler("says")\ndef says(payload, context):\n    {body}\n'
        )

    def result():
        job = requests.post(
            f"{api_of(environment)}/jobs", json={"payload": {"task": "says"}}, timeout=5
        ).json()
        return requests.get(f"{api_of(environment)}/jobs/{job['id']}?wait=20", timeout=30).json()["result"]

    write("return 1")
    environment |= {"HANDLERS": file.stem, "PYTHONPATH": f"{environment.get('PYTHONPATH', '')}:{tmp_path}"}
    with start(environment, "up", "--reload") as command:
        patience = threading.Timer(3 * PATIENCE, command.kill)
        patience.start()
        try:
            assert said(command, "Stop it: Ctrl-C")
            assert result() == 1
            write("return 20 + 2")
            assert "changing_handlers.py changed: api, worker, maintenance restarted in " in said(
                command, "changed"
            )
            assert result() == 22
            write("return (")
            assert "what runs stays as it was: HANDLERS" in said(command, "changed")
            assert result() == 22
        finally:
            # Not SIGINT: what runs in the background of a shell ignores that, and so does what it starts.
            command.send_signal(signal.SIGTERM)
            command.communicate(timeout=PATIENCE)
            patience.cancel()
            # What was killed has left its stack behind.
            ops(environment, "down", expect=None)
    assert command.returncode == 0


def said(command, part):
    """The next line that a command says with this in it."""
    for line in command.stdout:
        if part in line:
            return line
    raise AssertionError(f"it ended and never said {part!r}")


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
    assert "is not up" in ops(environment, "restart", "all", expect=1)
    assert "is not up" in ops(environment, "jobs", "list", expect=1)
    assert "Usage: python3 -m ops jobs" in ops(environment, "jobs", "--help")
