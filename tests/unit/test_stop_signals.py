"""Which signals end a worker or let it stand still, and whom they are handed on to."""

from __future__ import annotations

import os
import signal

import pytest

from tasks.processes import process_group, shutdown


@pytest.fixture
def installed(monkeypatch):
    """The handlers that are installed, instead of installing them."""
    found = {}
    monkeypatch.setattr(signal, "signal", found.__setitem__)
    return found


@pytest.fixture
def before(monkeypatch):
    """Sets what handles a signal before."""
    kept = {}
    monkeypatch.setattr(signal, "getsignal", lambda number: kept.get(number, signal.SIG_DFL))
    return kept


@pytest.fixture
def sent(monkeypatch):
    """Signals that are sent, instead of sending them."""
    found = []

    def killpg(group, number):
        if group == 404:
            raise ProcessLookupError
        found.append((group, number))

    monkeypatch.setattr(os, "killpg", killpg)
    monkeypatch.setattr(os, "kill", lambda pid, number: found.append((pid, number)))
    return found


def test_ctrl_z_stops_the_children_then_the_worker_and_all_go_on_together(installed, before, sent):
    process_group.stop_together(lambda: [404, 17, 18])
    installed[signal.SIGTSTP](signal.SIGTSTP, None)
    stop, go_on = signal.SIGSTOP, signal.SIGCONT
    assert sent == [(17, stop), (18, stop), (os.getpid(), stop), (17, go_on), (18, go_on)]


def test_a_worker_that_ignores_ctrl_z_does_so_with_its_children(installed, before):
    before[signal.SIGTSTP] = signal.SIG_IGN
    process_group.stop_together(lambda: [17])
    assert installed == {}


@pytest.fixture
def hurries(monkeypatch):
    """The signals that are made to end a worker in a hurry."""
    found = []
    monkeypatch.setattr(
        shutdown.program, "install_worker_term_hard_handler", lambda worker, sig: found.append(sig)
    )
    return found


def test_the_end_of_the_terminal_ends_a_worker_in_a_hurry(hurries, before, installed, monkeypatch):
    monkeypatch.delenv("CELERY_RDBSIG", raising=False)
    shutdown.listen(object(), lambda: None)
    assert (hurries, installed) == (["SIGUSR2", "SIGHUP"], {})


def test_a_worker_that_celery_restarts_is_drained_first(hurries, before, installed, monkeypatch):
    monkeypatch.setenv("CELERY_RDBSIG", "1")
    calls = []
    before[signal.SIGHUP] = lambda number, frame: calls.append(("restart", number))
    shutdown.listen(object(), lambda: calls.append("drain"))
    assert hurries == [], "SIGUSR2 is the debugger's"
    installed[signal.SIGHUP](signal.SIGHUP, None)
    assert calls == ["drain", ("restart", signal.SIGHUP)]


def test_a_worker_that_ignores_the_end_of_its_terminal_goes_on(hurries, before, installed):
    before[signal.SIGHUP] = signal.SIG_IGN
    shutdown.listen(object(), lambda: None)
    assert "SIGHUP" not in hurries
    assert installed == {}
