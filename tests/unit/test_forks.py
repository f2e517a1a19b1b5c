from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from webapp.infra import prefork

#: Longest anything here may take, seconds.
PATIENCE = 10.0


def _fork_in_a_thread(forked: threading.Event) -> threading.Thread:
    def fork() -> None:
        pid = os.fork()
        if pid == 0:  # pragma: no cover - another process
            os._exit(0)
        os.waitpid(pid, 0)
        forked.set()

    thread = threading.Thread(target=fork)
    thread.start()
    return thread


@pytest.fixture
def struck():
    """A time limit strikes in a moment."""

    def strike(_number: int, _frame: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, strike)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def test_a_fork_waits_until_nothing_is_in_a_library_any_more():
    forked = threading.Event()
    with prefork.held_off():
        thread = _fork_in_a_thread(forked)
        assert not forked.wait(0.2)
    assert forked.wait(PATIENCE)
    thread.join()


def test_a_fork_happens_while_the_block_only_waits():
    forked = threading.Event()
    with prefork.held_off(), prefork.held_off():
        thread = _fork_in_a_thread(forked)
        with prefork.let_through():
            assert forked.wait(PATIENCE)
        assert prefork._local.holds
    thread.join()
    with prefork.let_through():
        assert not prefork._local.holds


def test_a_block_may_keep_forks_waiting_while_it_waits_itself():
    forked = threading.Event()
    with prefork.held_off(waits_included=True):
        thread = _fork_in_a_thread(forked)
        with prefork.let_through():
            assert not forked.wait(0.2)
    assert forked.wait(PATIENCE)
    thread.join()


def test_a_block_that_forks_itself_does_not_wait_for_itself():
    with prefork.held_off():
        pid = os.fork()
        if pid == 0:  # pragma: no cover - another process
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0


@pytest.mark.usefixtures("struck")
def test_a_fork_whose_wait_was_broken_off_does_not_free_the_guard_of_another_thread():
    held, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        with prefork.held_off():
            held.set()
            go_on.wait(PATIENCE)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(PATIENCE)
    with pytest.raises(TimeoutError):
        prefork._before()
    prefork._after()
    assert prefork._guard.locked()
    go_on.set()
    thread.join()
    assert not prefork._guard.locked()


def test_a_child_may_hold_forks_off_again():
    """The guard is copied held, and is free in the child."""
    end = time.monotonic() + PATIENCE
    with prefork.held_off():
        pid = os.fork()
        if pid == 0:  # pragma: no cover - another process
            with prefork.held_off():
                os._exit(7)
    while (ended := os.waitpid(pid, os.WNOHANG)) == (0, 0):
        assert time.monotonic() < end
    assert os.waitstatus_to_exitcode(ended[1]) == 7
