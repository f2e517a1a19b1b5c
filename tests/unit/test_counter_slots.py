from __future__ import annotations

import os
import signal

import pytest

from webapp.infra.telemetry import counter_slots
from webapp.infra.telemetry.counter_slots import Slots


def in_child(work):
    """Forks; the child sends what `work` returns and then waits to be ended. Gives its pid and its answer."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:  # pragma: no cover - the child ends by a signal, before its coverage is written
        os.write(writing, str(work()).encode())
        signal.pause()
    os.close(writing)
    answer = os.read(reading, 20)
    os.close(reading)
    return pid, int(answer)


def end(pid, how=signal.SIGKILL):
    os.kill(pid, how)
    os.waitpid(pid, 0)


@pytest.fixture
def taken(tmp_path):
    """Slots in a folder that is not there yet, given back at the end as if this process had died."""
    made = Slots(tmp_path / "new" / "folder")
    yield made
    if made._lock is not None:
        made._lock.close()


def test_a_process_keeps_its_number(taken):
    assert [taken.number(), taken.number()] == [0, 0]


def test_a_forked_child_gets_a_number_of_its_own_and_its_parent_keeps_the_first(taken):
    assert taken.number() == 0
    child, number = in_child(taken.number)
    try:
        assert number == 1
        assert taken.number() == 0
    finally:
        end(child)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGUSR2])
def test_the_number_of_a_dead_process_is_given_to_the_next(taken, how):
    taken.number()
    first, number = in_child(taken.number)
    end(first, how)
    second, again = in_child(taken.number)
    end(second)
    assert number == again == 1


def test_living_processes_never_share_a_number(taken):
    children = [in_child(taken.number) for _ in range(5)]
    try:
        assert sorted(number for _, number in children) == [0, 1, 2, 3, 4]
    finally:
        for pid, _ in children:
            end(pid)


def test_a_full_folder_is_an_error_that_names_it(tmp_path, monkeypatch):
    monkeypatch.setattr(counter_slots, "MAX_SLOTS", 1)
    child, _ = in_child(Slots(tmp_path).number)
    try:
        with pytest.raises(RuntimeError, match=rf"all 1 slots in {tmp_path} are taken"):
            Slots(tmp_path).number()
    finally:
        end(child)
