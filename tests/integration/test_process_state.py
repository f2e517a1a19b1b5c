"""What a handler changes in its process is put back; each test runs in a process of its own, for it does the same."""

from __future__ import annotations

import gc
import io
import json
import locale
import logging
import os
import resource
import signal
import socket
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from tasks.attempt import pace
from tasks.attempt.soft_limit import SoftLimit
from tasks.processes import process_state, recycling
from tasks.processes.file_descriptors import FilesLost, OwnDescriptors, identity
from tasks.processes.process_state import ProcessState

#: The file on which a forked process answers; no test closes it.
ANSWER = 400


def in_a_child(work: Callable[[], Any]) -> Any:
    """What a function returns in a forked process."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:  # pragma: no cover - another process
        os.dup2(write, ANSWER)
        told = "nothing"
        try:
            told = json.dumps(work())
        except BaseException as error:  # noqa: BLE001 - told to the test
            told = json.dumps(f"{type(error).__name__}: {error}")
        finally:
            os.write(ANSWER, told.encode())
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as answer:
        told = answer.read()
    os.waitpid(pid, 0)
    return json.loads(told)


def close_files(*numbers: int) -> None:
    for number in numbers:
        os.close(number)


def move_to_a_folder_that_goes() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)


def redirect_output() -> None:
    other = os.open(os.devnull, os.O_WRONLY)
    os.dup2(other, 1)
    os.dup2(other, 2)


def ring(*_args: object) -> None:
    """Someone's signal handler."""


CHANGES: dict[str, tuple[str, Callable[[], object]]] = {
    "another folder": ("working folder", lambda: os.chdir("/")),
    "a folder that is gone": ("working folder", move_to_a_folder_that_goes),
    "umask": ("umask", lambda: os.umask(0o007)),
    "a new variable": ("environment", lambda: os.environ.update(NEW="1")),
    "a variable less": ("environment", lambda: os.environ.pop("PATH")),
    "no environment": ("environment", os.environ.clear),
    "a time zone": ("environment", lambda: (os.environ.update(TZ="Asia/Tokyo"), time.tzset())),
    "a time zone alone": (
        "time zone",
        lambda: (os.environ.update(TZ="Asia/Tokyo"), time.tzset(), os.environ.pop("TZ")),
    ),
    "the soft limit's handler": ("signal handlers", lambda: signal.signal(signal.SIGUSR1, ring)),
    "a handler for children": ("signal handlers", lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN)),
    "a blocked signal": (
        "blocked signals",
        lambda: signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM]),
    ),
    "an alarm": ("alarm", lambda: signal.alarm(60)),
    "an alarm's handler": ("alarm", lambda: signal.signal(signal.SIGALRM, ring)),
    "a timer": ("timers", lambda: signal.setitimer(signal.ITIMER_VIRTUAL, 60)),
    "recursion": ("recursion limit", lambda: sys.setrecursionlimit(5_000)),
    "a socket timeout": ("socket timeout", lambda: socket.setdefaulttimeout(0.5)),
    "a locale": ("locale", lambda: locale.setlocale(locale.LC_ALL, "C.UTF-8")),
    "no garbage collection": ("garbage collection", gc.disable),
    "fewer files": (
        "limits",
        lambda: resource.setrlimit(
            resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
        ),
    ),
    "logging": ("logging", lambda: logging.basicConfig(force=True, level=logging.CRITICAL)),
    "less time": (
        "limits",
        lambda: resource.setrlimit(resource.RLIMIT_CPU, (60, resource.getrlimit(resource.RLIMIT_CPU)[1])),
    ),
    "warnings as errors": ("warning filters", lambda: warnings.simplefilter("error")),
    "logging off": ("logging", lambda: logging.disable(logging.CRITICAL)),
    "no output": ("standard files", lambda: close_files(1, 2)),
    "no input": ("standard files", lambda: close_files(0)),
    "output elsewhere": ("standard files", redirect_output),
    "streams": ("standard files", lambda: setattr(sys, "stdout", io.StringIO())),
    "a closed stream": ("standard files", lambda: sys.stderr.close()),  # noqa: PLW0108 - another one by then
}


@pytest.mark.parametrize(("part", "change"), CHANGES.values(), ids=CHANGES.keys())
def test_what_a_job_has_changed_is_put_back(part, change):
    def play() -> Any:
        # A plain process's, not pytest's that are no files.
        sys.stdin, sys.stdout, sys.stderr = sys.__stdin__, sys.__stdout__, sys.__stderr__
        locale.setlocale(locale.LC_ALL, "C")
        around = ProcessState()
        before = Path.cwd(), dict(os.environ), time.tzname, signal.getsignal(signal.SIGUSR1)
        assert around.put_back("quiet") == []
        change()
        changed = around.put_back("loud")
        assert (Path.cwd(), dict(os.environ), time.tzname, signal.getsignal(signal.SIGUSR1)) == before
        assert around.put_back("loud") == [], "it is as it was"
        sys.stderr.write("one can write\n")
        return [changed, around.wants_look("loud", 0), around.wants_look("quiet", 0), around.unfit]

    changed, loud, quiet, unfit = in_a_child(play)
    assert part in changed
    assert (loud, quiet, unfit) == (True, False, "")


def test_while_the_soft_limit_is_at_work_the_alarm_is_not_looked_at():
    def play() -> Any:
        around = ProcessState()
        signal.alarm(60)
        return [around.put_back("a", alarm=False), signal.alarm(0) > 50]

    assert in_a_child(play) == [[], True]


def test_a_child_that_cannot_go_back_is_unfit():
    def play() -> Any:
        home = tempfile.mkdtemp()
        os.chdir(home)
        around = ProcessState()
        os.chdir("/")
        Path(home).rmdir()
        around.put_back("a")
        return around.unfit

    assert in_a_child(play) == "working folder: FileNotFoundError"


def test_a_child_that_was_born_in_a_folder_that_is_gone_is_not():
    def play() -> Any:
        move_to_a_folder_that_goes()
        around = ProcessState()
        os.chdir("/")
        return [around.put_back("a"), around.unfit]

    assert in_a_child(play) == [["working folder"], ""]


def test_a_limit_that_cannot_be_lifted_makes_a_child_unfit():
    def play() -> Any:
        around = ProcessState()
        if os.getuid() == 0:
            os.setuid(65_534)
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        around.put_back("a")
        return around.unfit

    assert in_a_child(play) == "limits: ValueError"


def test_after_every_file_was_closed_nothing_is_written_to_those_that_took_their_places(settings):
    def play() -> Any:
        pipe = os.pipe()
        own = OwnDescriptors()
        own.set_pipes(pipe)
        engine = own.watch(create_engine(settings.database_url))
        with engine.connect() as connection:
            session = connection.execute(text("SELECT pg_backend_pid()")).scalar()
        assert own.are_intact()
        os.closerange(3, ANSWER)
        with tempfile.TemporaryFile() as first, tempfile.TemporaryFile() as second:
            files = [first, second, *(os.fdopen(os.open(os.devnull, os.O_RDWR), "wb") for _ in range(30))]
            assert not own.are_intact()
            with pytest.raises(FilesLost):
                own.let_go()
            os.write(pipe[1], b"to the parent")
            with engine.connect() as connection:
                other = connection.execute(text("SELECT pg_backend_pid()")).scalar()
            engine.dispose()
            sizes = [os.fstat(one.fileno()).st_size for one in files[:2]]
        return [other != session, sizes, own.is_cut_off, own.are_intact()]

    assert in_a_child(play) == [True, [0, 0], True, True]


def test_a_closed_connection_alone_does_not_cut_the_child_off(settings):
    def play() -> Any:
        own = OwnDescriptors()
        own.set_pipes(os.pipe())
        engine = own.watch(create_engine(settings.database_url))
        with engine.connect() as connection:
            number = connection.connection.dbapi_connection.fileno()
        os.close(number)
        assert identity(number) is None
        assert not own.are_intact()
        with pytest.raises(FilesLost):
            own.let_go()
        with engine.connect() as connection:
            return [connection.execute(text("SELECT 1")).scalar(), own.is_cut_off]

    assert in_a_child(play) == [1, False]


class Waiting:
    """What billiard's process runs: it waits for messages."""

    def __init__(self) -> None:
        self.messages = 0
        self.wait_for_job = self._wait

    def _wait(self) -> str:
        self.messages += 1
        return "a message"


def between_messages(monkeypatch, play: Callable[[Waiting], Any]) -> Any:
    """Plays in a child of the worker that may run two jobs."""

    def begin() -> Any:
        worker = Waiting()
        # Jobs that other tests ran in this process are none of the child's.
        pace._paces.clear()
        monkeypatch.setattr(recycling, "current_process", lambda: SimpleNamespace(_target=worker))
        recycling.limit(2)
        return play(worker)

    return in_a_child(begin)


def test_what_a_child_has_is_kept_before_its_first_message(monkeypatch):
    def play(worker: Waiting) -> Any:
        before = process_state.kept()
        assert worker.wait_for_job() == "a message"
        around = process_state.kept()
        with SoftLimit() as limit:
            limit.begin(60)
            limit.end()
        worker.wait_for_job()
        return [before is None, process_state.kept() is around, around.put_back("a")]

    assert between_messages(monkeypatch, play) == [True, True, []]


@pytest.mark.parametrize("why", ["jobs", "unfit"])
def test_a_child_takes_no_message_after_so_many_jobs_or_when_it_is_unfit(monkeypatch, why):
    def play(worker: Waiting) -> Any:
        worker.wait_for_job()
        if why == "jobs":
            pace._paces["a"] = pace.Pace(count=1)
            worker.wait_for_job()
            pace._paces["b"] = pace.Pace(count=1)
        else:
            process_state.kept().give_up("of a test")
        try:
            worker.wait_for_job()
        except SystemExit as end:
            return [end.code, worker.messages]
        return "it took a message"

    assert between_messages(monkeypatch, play) == [0, 2 if why == "jobs" else 1]
