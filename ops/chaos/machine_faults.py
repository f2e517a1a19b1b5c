"""Faults of the machine: its disk is full, its power is cut, and someone starts everything twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil
import psycopg2
import requests

from ops.chaos import disk
from ops.chaos.stage import Broken, Fault, Stage
from ops.chaos.system import System
from ops.stack import ports
from ops.stack.venv import ROOT

#: How long the disk stays full, seconds: several restarts of what ends of it.
FULL_FOR = 8.0
#: Everything heals within this after the space's return, seconds.
HEALED_WITHIN = 60.0
#: Longest `ops up` and `down` may take, seconds.
UP_PATIENCE = 120
#: Settings of the system that a stack of its own must not have.
_OF_THE_SYSTEM = ("DATABASE_URL", "REDIS_URL", "SIMULATED_JOB_URL", "PROMETHEUS_MULTIPROC_DIR", "HANDLERS")
_PORTS = ("API_PORT", "FLOWER_PORT", "POSTGRES_PORT", "REDIS_PORT", "HTTPBIN_PORT", "PROMETHEUS_PORT")


def full_disk(stage: Stage) -> None:
    """The system's small disk is full for a while."""
    place = stage.system.disk
    if place is None:
        raise Broken("this scenario needs a system with a disk of its own")
    with stage.fault(f"{place} is full for {FULL_FOR:g} s"):
        filler = disk.fill(place)
        end = time.monotonic() + FULL_FOR
        while time.monotonic() < end:
            with suppress(psycopg2.Error):
                # PostgreSQL needs a new file of its log now, not only when this one is written to its end.
                stage.system.rows("SELECT pg_switch_wal()")
            stage.hold(0.5)
            with suppress(OSError):
                disk.fill(place)
        filler.unlink()


def cut_power(times: int) -> Fault:
    """Kill -9 of every process at the same moment."""

    def inject(stage: Stage) -> None:
        for _ in range(times):
            with stage.fault("kill -9 of everything at once"):
                died = kill_everything(stage.system)
            stage.say(f"{died} processes died")
            stage.system.wait_ready()
            stage.hold(1)

    return inject


def kill_everything(system: System) -> int:
    """Kill -9 of every process at the same moment, servers included; returns how many there were."""
    pids = _all_of(system)
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return len(pids)


def _all_of(system: System) -> list[int]:
    """Every process of a system: its members and their children, which are PostgreSQL's groups of their own."""
    pids = [
        member.process.pid
        for member in system.members.values()
        if member.process is not None and member.process.poll() is None
    ]
    for pid in tuple(pids):
        with suppress(psutil.NoSuchProcess):
            pids += [child.pid for child in psutil.Process(pid).children(recursive=True)]
    return pids


def up_twice(stage: Stage) -> None:
    """Two `python3 -m ops up` of one data folder at the same moment: one starts, the other says that it is up."""
    with tempfile.TemporaryDirectory(prefix="djps-twice-") as folder:
        environment = {name: value for name, value in os.environ.items() if name not in _OF_THE_SYSTEM}
        environment |= {name: str(ports.free()) for name in _PORTS}
        environment |= {"DJPS_DATA_DIR": str(Path(folder) / "data"), "RATE_LIMIT": "off"}
        with stage.fault("two `ops up` at once"):
            both = [_start(environment, "up", "--detach") for _ in range(2)]
            try:
                said = [one.communicate(timeout=UP_PATIENCE)[0] for one in both]
                codes = sorted(one.returncode for one in both)
                if codes != [0, 1] or not any("is up already" in text for text in said):
                    raise Broken(f"two `ops up` at once ended with {codes}: {' | '.join(said)[-500:]}")
                _completes_one(int(environment["API_PORT"]))
            finally:
                _start(environment, "down").communicate(timeout=UP_PATIENCE)


def _start(environment: dict[str, str], *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "ops", *words],
        env=environment,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _completes_one(port: int) -> None:
    url = f"http://{ports.LOOPBACK}:{port}/jobs"
    posted = requests.post(url, json={"payload": {"task": "noop"}}, timeout=10).json()
    found = requests.get(f"{url}/{posted['id']}?wait=20", timeout=30).json()
    if found.get("status") != "completed":
        raise Broken(f"what `ops up` started runs no job: it is {found.get('status')}")
