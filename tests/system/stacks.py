"""`python3 -m ops` as a newcomer types it, on ports and in a data folder of a test's own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import requests

from ops.stack import ports

ROOT = Path(__file__).resolve().parents[2]
PORTS = ("API_PORT", "FLOWER_PORT", "POSTGRES_PORT", "REDIS_PORT", "HTTPBIN_PORT", "PROMETHEUS_PORT")
#: What the suite sets for its own processes.
OURS = ("DATABASE_URL", "REDIS_URL", "SIMULATED_JOB_URL", "PROMETHEUS_MULTIPROC_DIR")
#: Seconds a command may take.
PATIENCE = 120


@contextmanager
def surroundings() -> Iterator[dict[str, str]]:
    """An environment with a data folder that is not there yet."""
    # Not pytest's own folder: another pytest closes that to other users, and PostgreSQL is one when root tests.
    folder = tempfile.mkdtemp(prefix="djps up ")
    kept = {name: value for name, value in os.environ.items() if name not in OURS}
    chosen = {name: str(ports.free()) for name in PORTS}
    try:
        yield {**kept, **chosen, "DJPS_DATA_DIR": f"{folder}/data of mine, 100%s", "RATE_LIMIT": "off"}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def start(environment: dict[str, str], *words: str) -> subprocess.Popen[str]:
    """Starts a command and goes on."""
    return subprocess.Popen(
        [sys.executable, "-m", "ops", *words],
        env=environment,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
    )


def ops(environment: dict[str, str], *words: str, expect: int | None = 0) -> str:
    """Runs a command; gives what it said."""
    with start(environment, *words) as command:
        said, _ = command.communicate(timeout=PATIENCE)
    assert expect is None or command.returncode == expect, said
    return said


def status(environment: dict[str, str]) -> dict:
    """What runs; the exit code does not matter, for it says whether all of it does."""
    return json.loads(ops(environment, "status", "--json", expect=None))


def supervisor_of(environment: dict[str, str]) -> psutil.Process:
    """The supervisor of the stack that runs."""
    return psutil.Process(int((Path(environment["DJPS_DATA_DIR"]) / "run" / "supervisord.pid").read_text()))


def api_of(environment: dict[str, str]) -> str:
    """Where the API is."""
    return f"http://127.0.0.1:{environment['API_PORT']}"


def completes(environment: dict[str, str], task: str = "noop") -> bool:
    """True if a job is taken and done right now."""
    try:
        job = requests.post(f"{api_of(environment)}/jobs", json={"payload": {"task": task}}, timeout=5)
        if job.status_code != requests.codes.created:
            return False
        found = requests.get(f"{api_of(environment)}/jobs/{job.json()['id']}?wait=5", timeout=10).json()
    except (requests.RequestException, ValueError):
        return False
    return found.get("status") == "completed"
