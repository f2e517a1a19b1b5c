from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from billiard.pool import TimeoutHandler
from billiard.popen_fork import Popen

from tasks.processes import forks, process_group, session


def lives(pid: int) -> bool:
    return any(one.pid == pid for one in session.process_table()) and state_of(pid) != "Z"


def state_of(pid: int) -> str:
    try:
        return Path(session.PROC, str(pid), "stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


@pytest.fixture
def leader():
    """Forks a process that leads a session, starts others there, and waits; gives its pid and theirs."""
    made = []

    def fork(*starts: dict) -> tuple[int, list[int]]:
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:  # pragma: no cover - another process, ended by a signal
            session.lead()
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            started = [subprocess.Popen(["sleep", "600"], **how).pid for how in starts]
            os.write(write, f"{' '.join(map(str, started))}\n".encode())
            while True:
                signal.pause()
        os.close(write)
        with os.fdopen(read) as told:
            started = [int(one) for one in told.readline().split()]
        made.append((pid, started))
        return pid, started

    yield fork
    for pid, started in made:
        for one in (pid, *started):
            try:
                os.kill(one, signal.SIGKILL)
            except ProcessLookupError:
                continue
        try:
            os.waitpid(pid, 0)
        except ChildProcessError:
            continue


def test_a_killed_child_takes_with_it_what_it_started_wherever_that_went(leader, eventually):
    pid, started = leader({}, {"start_new_session": True}, {"process_group": 0})
    assert all(lives(one) for one in started)
    process_group.end(pid)
    eventually(lambda: not any(lives(one) for one in (pid, *started)), 5)


def test_what_a_dead_child_left_ends_when_its_death_is_noticed(leader, eventually, monkeypatch):
    for owner, name in ((Popen, "poll"), (TimeoutHandler, "_trywaitkill")):
        monkeypatch.setattr(owner, name, getattr(owner, name))
    process_group.watch_children()
    pid, started = leader({}, {"process_group": 0})
    watched = Popen.__new__(Popen)
    watched.pid, watched.returncode = pid, None
    assert watched.poll() is None
    assert all(lives(one) for one in started), "a living child's processes are its own business"
    os.kill(pid, signal.SIGKILL)
    assert watched.poll(0) == -signal.SIGKILL
    eventually(lambda: not any(lives(one) for one in started), 5)
    assert watched.poll() == -signal.SIGKILL, "a reaped child's number may be another's by now"


def test_what_a_dead_child_left_ends_before_its_job_is_given_to_another(leader, eventually):
    pid, started = leader({}, {"process_group": 0})
    process_group.end_rest_of_dead(pid)
    assert all(lives(one) for one in started), "it lives"
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: not process_group.is_child(pid), 5)
    process_group.end_rest_of_dead(pid)
    eventually(lambda: not any(lives(one) for one in started), 5)


def test_the_number_of_a_reaped_child_is_left_alone(leader):
    pid, started = leader({})
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    process_group.end_rest_of_dead(pid)
    assert all(lives(one) for one in started)


def test_a_child_that_has_no_group_yet_is_ended_alone(leader):
    stranger = subprocess.Popen(["sleep", "600"])
    pid = os.fork()
    if pid == 0:  # pragma: no cover - another process, ended by a signal
        while True:
            signal.pause()
    process_group.end(pid)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    assert stranger.poll() is None
    stranger.kill()
    stranger.wait(5)


def test_ctrl_z_stops_the_children_too_and_continues_them():
    script = """
import os, signal, subprocess
from tasks.processes import process_group
child = subprocess.Popen(["sleep", "600"], start_new_session=True)
process_group.stop_together(lambda: [child.pid])
print(child.pid, flush=True)
while True:
    signal.pause()
"""
    worker = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    child = int(worker.stdout.readline())

    def both(state: str) -> None:
        end = time.monotonic() + 10
        while (state_of(worker.pid), state_of(child)) != (state, state):
            assert time.monotonic() < end, (state_of(worker.pid), state_of(child))
            time.sleep(0.01)

    try:
        both("S")
        worker.send_signal(signal.SIGTSTP)
        both("T")
        worker.send_signal(signal.SIGCONT)
        both("S")
    finally:
        worker.kill()
        os.kill(child, signal.SIGKILL)
        worker.wait(5)
        worker.stdout.close()


@pytest.mark.parametrize(
    ("leave", "code"),
    [
        (lambda: {"copy": True}, 0),
        (lambda: 1 / 0, 1),
        (lambda: sys.exit(3), 3),
        (lambda: sys.exit("text"), 1),
        (sys.exit, 0),
    ],
    ids=["returns", "raises", "exits", "exits with a text", "exits with nothing"],
)
def test_a_copy_that_comes_out_of_its_handler_ends(leave, code):
    def handler() -> int:
        pid = os.fork()
        if pid == 0:  # pragma: no cover - another process
            return leave()
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    assert forks.call(handler) == code


def test_the_process_of_the_job_itself_gets_what_its_handler_does():
    assert forks.call(lambda one, two: one + two, 1, 2) == 3
    with pytest.raises(ZeroDivisionError):
        forks.call(lambda: 1 / 0)
