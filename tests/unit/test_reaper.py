"""What the worker's reaper knows when the worker has ended, and what it does then."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from tasks.processes import reaper, session

#: No process has this number, so it is no parent.
GONE = 0


@pytest.fixture
def pipe():
    read, write = os.pipe()
    open_ends = {read, write}

    def close(end):
        open_ends.discard(end)
        os.close(end)

    yield read, write, close
    for end in open_ends:
        os.close(end)


def test_it_knows_the_children_that_were_born_and_not_reaped(pipe):
    read, write, close = pipe
    os.write(write, b"5\n7\n-5\n11\n9")
    close(write)
    assert reaper.known_at_end(os.getppid(), read) == {7, 11}, "the last line was not written to its end"


def test_a_line_may_come_in_two_parts_and_late(pipe, monkeypatch):
    read, write, close = pipe
    monkeypatch.setattr(reaper, "LOOK_EVERY", 0.01)
    looks = []
    real = reaper.select.select

    def select(*given):
        found = real(*given)
        looks.append(bool(found[0]))
        if len(looks) == 2:
            os.write(write, b"1")
        elif len(looks) == 3:
            os.write(write, b"2\n")
            close(write)
        return found

    monkeypatch.setattr(reaper.select, "select", select)
    assert reaper.known_at_end(os.getppid(), read) == {12}
    assert looks[:2] == [False, False]


def test_a_pipe_that_another_process_keeps_open_does_not_hold_it(pipe):
    read, write, _ = pipe
    os.write(write, b"3\n4\n-3\n")
    assert reaper.known_at_end(GONE, read) == {4}


def test_it_ends_what_is_left_of_each_child_and_listens_to_no_signal_for_the_worker(pipe, monkeypatch):
    read, write, close = pipe
    ended, ignored = [], {}
    monkeypatch.setattr(session, "end_rest", ended.append)
    monkeypatch.setattr(reaper.signal, "signal", ignored.__setitem__)
    os.write(write, b"5\n7\n")
    close(write)
    reaper.main(os.getppid(), read)
    assert sorted(ended) == [5, 7]
    assert ignored[signal.SIGTERM] is ignored[signal.SIGINT] is signal.SIG_IGN


def test_births_and_deaths_are_told_and_a_child_holds_no_pipe(pipe, monkeypatch):
    read, write, close = pipe
    child = os.dup(write)
    monkeypatch.setattr(reaper, "_told", child)
    reaper.note_birth()
    assert reaper._told is None
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(child)
    reaper.note_death(8)
    monkeypatch.setattr(reaper, "_told", write)
    reaper.note_death(9)
    monkeypatch.setattr(reaper, "_told", None)
    close(write)
    assert os.read(read, 100) == b"%d\n-9\n" % os.getpid()


def test_a_reaper_that_is_gone_costs_the_worker_nothing(pipe, monkeypatch):
    read, write, close = pipe
    close(read)
    before = signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    try:
        monkeypatch.setattr(reaper, "_told", write)
        reaper.note_death(9)
    finally:
        signal.signal(signal.SIGPIPE, before)


def test_it_is_a_program_of_pythons_own_modules(monkeypatch):
    """It runs where nothing is installed: else it would be as large as the worker."""
    threads = threading.active_count()
    reaper.start()
    process, told = reaper._process, reaper._told
    monkeypatch.setattr(reaper, "_told", None)
    monkeypatch.setattr(reaper, "_process", None)
    assert process.poll() is None
    assert threading.active_count() == threads
    os.close(told)
    assert process.wait(10) == 0
