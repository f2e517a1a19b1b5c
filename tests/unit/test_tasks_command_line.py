"""The command line of workers and beat."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tasks import __main__ as program

ROOT = Path(__file__).resolve().parents[2]


def test_a_worker_is_named_and_told_its_queues_as_with_celery():
    words = ["worker", "-n", "maintenance@%h", "-Q", "maintenance", "-c", "2"]
    chosen = program.parser().parse_args(words)
    assert (chosen.hostname, chosen.queues, chosen.exclude_queues) == ("maintenance@%h", "maintenance", None)
    assert chosen.concurrency == 2
    by_default = program.parser().parse_args(["worker"])
    assert (by_default.hostname, by_default.concurrency) == ("worker@%h", None)


@pytest.mark.parametrize(
    "words", [[], ["flower"], ["worker", "-c", "0"], ["worker", "-c", "many"], ["beat", "-c", "2"]]
)
def test_what_it_does_not_know_is_refused_in_words(words, capsys):
    with pytest.raises(SystemExit) as ended:
        program.main(words)
    assert ended.value.code == 2
    assert "usage: python -m tasks" in capsys.readouterr().err


def test_a_queue_that_no_handler_names_is_one_sentence():
    done = subprocess.run(
        [sys.executable, "-m", "tasks", "worker", "-Q", "nowhere"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    said = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert len(said) == 1
    assert said[0].startswith("djps: Trying to select queue subset of ['nowhere']")


def test_the_interpreter_can_run_the_same_command_line_again(monkeypatch):
    """Celery starts a worker anew with `sys.executable` and `sys.argv`."""
    monkeypatch.setattr(sys, "argv", ["/somewhere/tasks/__main__.py"])
    monkeypatch.setattr(program, "_work", lambda _: 0)
    assert program.main(["worker", "-n", "a@%h"]) == 0
    assert sys.argv == ["-m", "tasks", "worker", "-n", "a@%h"]
    done = subprocess.run(
        [sys.executable, *sys.argv[:2], "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "usage: python -m tasks" in done.stdout


_DEATH_SIGNAL = """
import ctypes
from webapp.infra import prefork
prefork.end_with_parent("SIGTERM")
found = ctypes.c_int()
ctypes.CDLL(None).prctl(2, ctypes.byref(found))
print(found.value)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other kernels have no such signal")
def test_a_child_ends_with_its_parent():
    done = subprocess.run(
        [sys.executable, "-c", _DEATH_SIGNAL],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert int(done.stdout) == signal.SIGTERM
