from __future__ import annotations

import os
import signal
import time
from uuid import UUID

import pytest

from tasks.processes import run_table
from tasks.processes.run_table import SLOTS, Phase, RunTable
from webapp.jobs.loss import LastSeen

JOB, OTHER = UUID(int=1), UUID(int=2)


def in_child(table: RunTable, work) -> int:
    """Forks a child that has a slot, does the work, and is killed; returns its pid."""
    table.next_slot()
    pid = os.fork()
    if pid == 0:  # pragma: no cover - another process
        table.take(os.getpid())
        work()
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    return pid


def test_what_a_child_ran_when_it_was_killed_is_known_afterwards():
    table = RunTable()

    def work() -> None:
        table.begin(OTHER, 1, 30.0, time.monotonic())
        table.ended()
        table.begin(JOB, 7, 2.5, time.monotonic())

    pid = in_child(table, work)
    run = table.of(pid)
    assert (run.phase, run.job_id, run.attempt, run.timeout) == (Phase.RUNNING, JOB, 7, 2.5)
    assert table.last_seen(f"host:1:boot/{pid}") == LastSeen(JOB, 7)
    assert dict(table.running()) == {pid: run}


@pytest.mark.parametrize("last", ["ended", "clear"])
def test_a_child_whose_handler_had_ended_was_running_nothing(last):
    table = RunTable()

    def work() -> None:
        table.begin(JOB, 1, 30.0, time.monotonic())
        getattr(table, last)()

    pid = in_child(table, work)
    assert table.last_seen(f"host:1:boot/{pid}") == LastSeen()
    assert (table.of(pid) is None) == (last == "clear")


def test_a_child_that_was_never_seen_ran_nothing():
    assert RunTable().last_seen("host:1:boot/4711") == LastSeen()


def test_a_slot_of_a_living_process_is_not_given_to_another():
    table = RunTable()
    table.next_slot()
    table.take(17)
    table.begin(JOB, 1, 30.0, time.monotonic())
    for _ in range(2 * SLOTS):
        table.next_slot(lambda pid: pid == 17)
        assert table._pid(table._slot) != 17
    assert table.of(17).job_id == JOB


def test_without_a_slot_nothing_is_written():
    table = RunTable()
    table.begin(JOB, 1, 30.0, time.monotonic())
    table.ended()
    assert dict(table.running()) == {}


def test_the_worker_that_comes_after_a_dead_one_can_read_what_its_children_ran(tmp_path):
    file = tmp_path / "worker.runs"
    table = RunTable(file)
    pid = in_child(table, lambda: table.begin(JOB, 3, 30.0, time.monotonic()))
    assert run_table.read(file).last_seen(f"host:1:boot/{pid}") == LastSeen(JOB, 3)


@pytest.mark.parametrize("text", [None, b"", b"short"])
def test_a_table_that_cannot_be_read_is_none(tmp_path, text):
    file = tmp_path / "worker.runs"
    if text is not None:
        file.write_bytes(text)
    assert run_table.read(file) is None


def test_where_the_file_cannot_be_made_the_table_is_memory_alone(tmp_path):
    table = RunTable(tmp_path / "no" / "folder" / "worker.runs")
    pid = in_child(table, lambda: table.begin(JOB, 1, 30.0, time.monotonic()))
    assert table.of(pid).job_id == JOB


def test_a_handler_is_late_once_its_time_and_the_grace_are_over():
    table = RunTable()
    table.next_slot()
    table.take(17)
    table.begin(JOB, 1, 10.0, time.monotonic())
    run = table.of(17)
    assert not run.is_late(run.began_at + 14.9, grace=5.0)
    assert run.is_late(run.began_at + 15.1, grace=5.0)
    table.ended()
    assert not table.of(17).is_late(run.began_at + 99, grace=5.0)
