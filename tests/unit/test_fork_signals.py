"""Processes that a job forks begin with the signals of any program; each test runs in a process of its own."""

from __future__ import annotations

import functools
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress

import pytest
from billiard.common import reset_signals
from billiard.pool import soft_timeout_sighandler
from celery.exceptions import SoftTimeLimitExceeded

from tasks.processes import fork_signals

#: Longest anything here may take, seconds.
PATIENCE = 10.0
#: How a process of a test ends whose expectations all came true.
FINE = 17
#: What a worker's child has handlers for.
SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGINT)


def end_of(pid: int) -> int:
    """How a child ended: its exit code, or the signal with a minus before it."""
    end = time.monotonic() + PATIENCE
    while (ended := os.waitpid(pid, os.WNOHANG)) == (0, 0):
        if time.monotonic() > end:
            os.kill(pid, signal.SIGKILL)
            raise AssertionError(f"{pid} goes on")
        time.sleep(0.005)
    return os.waitstatus_to_exitcode(ended[1])


def in_a_workers_child(test: Callable[[], None]) -> Callable[[], None]:
    """Runs a test in a process that has the signal handlers of a worker's child."""

    @functools.wraps(test)
    def run() -> None:
        pid = os.fork()
        if pid == 0:  # pragma: no cover - another process
            try:
                os.setsid()
                for number in SIGNALS:
                    signal.signal(number, signal.SIG_DFL)
                reset_signals()
                signal.signal(signal.SIGUSR1, soft_timeout_sighandler)
                signal.signal(signal.SIGINT, signal.SIG_IGN)
                fork_signals.guard_forks()
                fork_signals.pass_over_interrupts()
                test()
                os._exit(FINE)
            except BaseException:  # noqa: BLE001 - told in the test's output
                sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
            finally:
                os._exit(1)
        try:
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == FINE
        finally:
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)

    return run


def fork() -> int:
    """A copy that waits for ever; its pid."""
    pid = os.fork()
    if pid == 0:
        while True:
            signal.pause()
    return pid


@in_a_workers_child
def test_a_copy_ends_by_a_signal_that_comes_while_it_is_born():
    born, tell_born = os.pipe()
    go, tell_go = os.pipe()

    def be_born() -> None:
        os.write(tell_born, b"x")
        os.read(go, 1)

    os.register_at_fork(after_in_child=be_born)
    pid = fork()
    os.read(born, 1)
    os.kill(pid, signal.SIGTERM)
    os.write(tell_go, b"x")
    assert end_of(pid) == -signal.SIGTERM


@in_a_workers_child
def test_a_copy_ends_by_a_signal_that_is_sent_at_once():
    """Mostly before it has run at all."""
    for _ in range(40):
        pid = fork()
        os.kill(pid, signal.SIGTERM)
        assert end_of(pid) == -signal.SIGTERM


@in_a_workers_child
def test_a_copy_has_none_of_the_workers_handlers():
    assert all(fork_signals.is_the_workers(signal.getsignal(one)) for one in SIGNALS)
    pid = os.fork()
    if pid == 0:
        found = [signal.getsignal(one) for one in SIGNALS]
        os._exit(FINE if found == [*[signal.SIG_DFL] * 4, signal.default_int_handler] else 1)
    assert end_of(pid) == FINE


@in_a_workers_child
def test_a_copy_keeps_the_handlers_of_the_job():
    signal.signal(signal.SIGTERM, lambda *_: os._exit(5))
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    pid = fork()
    os.kill(pid, signal.SIGHUP)
    os.kill(pid, signal.SIGTERM)
    assert end_of(pid) == 5


@in_a_workers_child
def test_a_copy_blocks_what_the_job_has_blocked():
    mask = {signal.SIGUSR2, signal.SIGWINCH}
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    pid = os.fork()
    if pid == 0:
        os._exit(FINE if signal.pthread_sigmask(signal.SIG_BLOCK, ()) == mask else 1)
    assert end_of(pid) == FINE
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == mask


@in_a_workers_child
def test_a_time_limit_that_strikes_during_a_fork_is_raised_when_it_is_done():
    os.register_at_fork(after_in_parent=lambda: os.kill(os.getpid(), signal.SIGUSR1))
    with pytest.raises(SoftTimeLimitExceeded):
        fork()
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()


@in_a_workers_child
def test_what_is_run_by_a_terminals_fork_is_guarded_as_well():
    pid, terminal = pty.fork()
    if pid == 0:
        os._exit(FINE if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL else 1)
    assert end_of(pid) == FINE
    os.close(terminal)


@in_a_workers_child
def test_a_program_ends_by_an_interrupt_and_the_child_does_not():
    command = subprocess.Popen(["sleep", "600"])
    command.send_signal(signal.SIGINT)
    assert command.wait(PATIENCE) == -signal.SIGINT
    os.kill(os.getpid(), signal.SIGINT)
