"""The supervisor outlives a full disk, and nothing outlives the supervisor."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import psutil
import pytest
from supervisor import events
from supervisor.states import ProcessStates

from ops.stack.supervisord import LONGEST_DELAY, LogFile, Process, end_with_parent


def record(text):
    return SimpleNamespace(msg=text, kw={})


def test_a_line_that_cannot_be_written_is_lost_and_the_next_one_is_not(tmp_path):
    log = LogFile("/dev/full")
    log.emit(record(b"nowhere to go\n"))
    log.baseFilename = str(tmp_path / "log")
    log.emit(record(b"here\n"))
    log.close()
    assert (tmp_path / "log").read_text() == "\nhere\n"


def test_a_log_is_rotated_and_bounded(tmp_path):
    log = LogFile(str(tmp_path / "log"), maxBytes=100, backupCount=2)
    for number in range(40):
        log.emit(record(b"%020d\n" % number))
    found = sorted(file.name for file in tmp_path.iterdir())
    assert found == ["log.1", "log.2"]
    assert (tmp_path / "log.1").read_text().splitlines()[-1] == f"{39:020d}"
    log.emit(record(b"on\n"))
    assert (tmp_path / "log").read_text() == "on\n"


def test_a_log_that_someone_deletes_is_made_again(tmp_path):
    folder = tmp_path / "logs"
    log = LogFile(str(folder / "log"))
    log.emit(record(b"one\n"))
    (folder / "log").unlink()
    folder.rmdir()
    log.emit(record(b"two\n"))
    assert (folder / "log").read_text() == "two\n"


def test_a_log_in_a_place_that_is_none_raises_nothing(tmp_path):
    (tmp_path / "file").touch()
    LogFile(str(tmp_path / "file" / "log")).emit(record(b"lost\n"))


@pytest.mark.parametrize("failures", [1, 3, 100, 10_000])
def test_a_process_that_does_not_start_is_tried_again_within_seconds(failures):
    events.clear()
    process = Process(SimpleNamespace(name="postgres"))
    process.backoff = failures - 1
    process.state = ProcessStates.STARTING
    process.change_state(ProcessStates.BACKOFF)
    assert process.delay <= time.time() + LONGEST_DELAY
    assert process.died


def test_a_process_ends_with_its_parent(eventually):
    """A parent starts a child that asks to end with it, says its pid, and is killed."""
    code = """
        import os, subprocess, sys, time
        from ops.stack.supervisord import end_with_parent
        import signal
        mine = os.getpid()
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"],
            preexec_fn=lambda: end_with_parent(signal.SIGTERM, mine))
        print(child.pid, flush=True)
        time.sleep(600)
    """
    with subprocess.Popen(
        [sys.executable, "-c", "\n".join(line[8:] for line in code.splitlines())],
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        child = psutil.Process(int(parent.stdout.readline()))
        assert child.is_running()
        parent.kill()
        parent.wait()
    eventually(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


def test_a_parent_that_is_dead_already_is_noticed():
    pid = os.fork()
    if pid == 0:  # pragma: no cover - the child ends without its coverage
        end_with_parent(signal.SIGTERM, parent=1_000_000_000)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
