from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from factories import attempts_of, claimed, row_of

from tasks import liveness
from tasks.presence import dead_workers
from tasks.presence.dead_workers import LifeLock
from tasks.presence.thread import Presence
from tasks.processes import reaper, session
from tasks.runtime import worker_name
from webapp.infra.broker import heartbeats

NAME = "host:4242:0a1b2c3d"


@pytest.fixture
def presence(settings, tmp_path) -> Presence:
    return Presence(settings.model_copy(update={"data_dir": tmp_path}), role="worker@test")


@pytest.fixture
def worker(tmp_path):
    """Another worker: a process that has its lock, and perhaps a child; gives their pids."""
    made = []

    def start(*, child: bool = False) -> list[int]:
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:  # pragma: no cover - another process, ended by a signal
            try:
                LifeLock(tmp_path, NAME)
                pids = [os.getpid()]
                if child and (own := os.fork()):
                    pids.append(own)
                if os.getpid() == pids[0]:
                    os.write(write, f"{' '.join(map(str, pids))}\n".encode())
                while True:
                    signal.pause()
            finally:
                os._exit(1)
        os.close(write)
        with os.fdopen(read) as told:
            made.extend(pids := [int(one) for one in told.readline().split()])
        return pids

    yield start
    for pid in made:
        kill(pid)


def kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        return


def test_a_living_worker_keeps_its_jobs_and_a_dead_one_loses_them_at_once(
    presence, engine, worker, redis, settings
):
    (pid,) = worker()
    claim = claimed(engine, worker_id=f"{NAME}/77")
    other = claimed(engine, worker_id="host:4243:0a1b2c3d/77")
    heartbeats.beat(redis, NAME, settings.worker_heartbeat_ttl, "{}")
    assert presence.dead_workers.take_over() == 0
    assert row_of(engine, claim.id).status == "processing"
    kill(pid)
    assert presence.dead_workers.take_over() == 1
    assert row_of(engine, claim.id).status == "queued"
    assert [attempt.outcome for attempt in attempts_of(engine, claim.id)] == ["lost"]
    assert row_of(engine, other.id).status == "processing", "nothing is known of that worker"
    assert heartbeats.live_workers(redis) == []
    assert presence.dead_workers.take_over() == 0
    presence.stop()


def test_a_worker_whose_child_still_runs_is_not_dead(presence, engine, worker, eventually):
    parent, child = worker(child=True)
    claim = claimed(engine, worker_id=f"{NAME}/{child}")
    kill(parent)
    assert presence.dead_workers.take_over() == 0
    assert row_of(engine, claim.id).status == "processing"
    os.kill(child, signal.SIGKILL)
    eventually(lambda: presence.dead_workers.take_over() == 1, 5)


def test_a_stopped_worker_is_not_dead(presence, engine, worker):
    (pid,) = worker()
    claim = claimed(engine, worker_id=f"{NAME}/77")
    os.kill(pid, signal.SIGSTOP)
    assert presence.dead_workers.take_over() == 0
    assert row_of(engine, claim.id).status == "processing"


def test_nothing_is_taken_from_a_worker_of_another_machine(presence, engine, worker, tmp_path, monkeypatch):
    (pid,) = worker()
    claim = claimed(engine, worker_id=f"{NAME}/77")
    kill(pid)
    (tmp_path / "boot_id").write_text("another run of a kernel")
    monkeypatch.setattr(dead_workers, "_KERNEL_RUN", tmp_path / "boot_id")
    assert presence.dead_workers.take_over() == 0
    assert row_of(engine, claim.id).status == "processing"
    monkeypatch.undo()
    assert presence.dead_workers.take_over() == 1


def test_files_from_before_the_machine_was_started_again_are_swept_up(presence, tmp_path):
    LifeLock(tmp_path, NAME)
    file = liveness.folder(tmp_path) / f"{NAME}{dead_workers.SUFFIX}"
    left = file.with_name(f"left{dead_workers.SUFFIX}")
    left.write_text("an earlier run of the kernel")
    presence.dead_workers.take_over()
    assert left.exists()
    old = time.time() - dead_workers.FOREIGN_KEPT - 1
    os.utime(left, (old, old))
    os.utime(file, (old, old))
    presence.dead_workers.take_over()
    assert file.exists(), "its lock is held"
    assert not left.exists()


def test_what_cannot_be_settled_yet_is_found_again(presence, engine, worker, monkeypatch):
    (pid,) = worker()
    claim = claimed(engine, worker_id=f"{NAME}/77")
    kill(pid)

    def fail(*_args):
        raise ConnectionError("away")

    with monkeypatch.context() as away:
        away.setattr(dead_workers, "_settle", fail)
        with pytest.raises(ConnectionError):
            presence.dead_workers.take_over()
    assert presence.dead_workers.take_over() == 1
    assert row_of(engine, claim.id).status == "queued"


def test_a_worker_does_not_find_itself_and_leaves_nothing_behind(presence, tmp_path):
    lock = LifeLock(tmp_path, worker_name())
    assert list(dead_workers.find(tmp_path, worker_name())) == []
    lock.give_up()
    lock.give_up()
    assert not list(liveness.folder(tmp_path).glob("*"))
    presence.stop()


def test_a_look_at_dead_workers_is_one_of_presences_duties(presence, engine, worker):
    (pid,) = worker()
    claim = claimed(engine, worker_id=f"{NAME}/77")
    kill(pid)
    presence.run_once()
    assert row_of(engine, claim.id).status == "queued"
    presence.stop()


def test_what_a_killed_workers_jobs_started_is_ended_by_its_reaper(eventually):
    read, write = os.pipe()
    worker = os.fork()
    if worker == 0:  # pragma: no cover - another process, ended by a signal
        try:
            reaper.start()
            for ends_before in (True, False):
                child = os.fork()
                if child == 0:
                    session.lead()
                    reaper.note_birth()
                    os.write(write, b"%d\n" % subprocess.Popen(["sleep", "600"]).pid)
                    while not ends_before:
                        signal.pause()
                    os._exit(0)
                if ends_before:
                    os.waitpid(child, 0)
                    reaper.note_death(child)
            while True:
                signal.pause()
        finally:
            os._exit(1)
    os.close(write)
    with os.fdopen(read) as told:
        first, second = int(told.readline()), int(told.readline())
    began = time.monotonic()
    kill(worker)
    eventually(lambda: not lives(second), 10)
    assert time.monotonic() - began < 3
    assert lives(first), "its child was reaped, and its number may be another's by now"
    os.kill(first, signal.SIGKILL)


def lives(pid: int) -> bool:
    try:
        return Path(session.PROC, str(pid), "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
