"""`ops down` ends what the stack started, and nothing that merely stands in its folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import psutil
import pytest

from ops.stack import ownership

SLEEP = "import time; time.sleep(600)"


@pytest.fixture
def process():
    """Starts processes with an environment and a working folder; ends them."""
    started = []

    def start(command, mark=None, cwd="/"):
        environment = {name: value for name, value in os.environ.items() if name != ownership.MARK}
        if mark is not None:
            environment[ownership.MARK] = str(mark)
        started.append(subprocess.Popen(command, env=environment, cwd=cwd, stdin=subprocess.DEVNULL))
        return started[-1].pid

    yield start
    for one in started:
        one.kill()
        one.wait()


def pids(data):
    return {one.pid for one in ownership.find(data)}


def test_a_program_of_ours_with_our_mark_is_ours(process, tmp_path, eventually):
    ours = process([sys.executable, "-c", SLEEP], mark=tmp_path)
    eventually(lambda: pids(tmp_path) == {ours})


@pytest.mark.parametrize("folder", ["", "postgres", "redis", "run"])
def test_a_shell_in_the_data_folder_is_not_ours(process, tmp_path, folder):
    (tmp_path / folder).mkdir(exist_ok=True)
    process([shutil.which("sleep"), "600"], cwd=tmp_path / folder)
    process([sys.executable, "-c", SLEEP], cwd=tmp_path / folder)
    assert pids(tmp_path) == set()


def test_neither_is_another_program_that_a_job_started_nor_another_stacks(process, tmp_path):
    process([shutil.which("sleep"), "600"], mark=tmp_path)
    process([sys.executable, "-c", SLEEP], mark=tmp_path / "another")
    assert pids(tmp_path) == set()


def test_who_asks_is_not_found(tmp_path):
    found = subprocess.run(
        [
            sys.executable,
            "-c",
            f"from pathlib import Path; from ops.stack import ownership; print(ownership.find(Path({str(tmp_path)!r})))",
        ],
        env={**os.environ, ownership.MARK: str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert found.stdout.strip() == "[]"


def test_a_process_that_does_not_hear_is_killed(process, tmp_path, eventually):
    deaf = process(
        [
            sys.executable,
            "-c",
            f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); {SLEEP}",
        ],
        mark=tmp_path,
    )
    eventually(lambda: pids(tmp_path) == {deaf})
    found = ownership.find(tmp_path)
    ownership.end(found, patience=0.5)
    assert not psutil.pid_exists(deaf) or psutil.Process(deaf).status() == psutil.STATUS_ZOMBIE
