"""`ops new handler` writes files that pass the project's checks, and never over others."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ops import new_handler

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.prefix) / "bin"


def run(folder, *command):
    return subprocess.run(
        [str(BIN / command[0]), *command[1:]],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": f"{ROOT}:{folder}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.mark.parametrize("name", ["send-email", "class", "2.orders"])
def test_what_is_written_passes_its_test_and_the_checks(tmp_path, name):
    written = [str(path) for path in new_handler.write(name, tmp_path)]
    done = run(tmp_path, "pytest", "-q", "-p", "no:cacheprovider")
    assert "2 passed" in done.stdout, done.stdout + done.stderr
    # The import of the handler is sorted as that of a module of one's own, which it is in a clone.
    done = run(tmp_path, "ruff", "check", "--config", str(ROOT / ".ruff.toml"), "--ignore", "I001", *written)
    assert done.returncode == 0, done.stdout
    assert (
        run(tmp_path, "ruff", "format", "--check", "--config", str(ROOT / ".ruff.toml"), *written).returncode
        == 0
    )


@pytest.mark.parametrize("name", ["", "a b", "../x", "x" * 101, "-x", "a\nb"])
def test_a_name_that_no_handler_may_have_is_refused(tmp_path, name):
    with pytest.raises(new_handler.CannotWrite, match="must match"):
        new_handler.write(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_name_of_a_built_in_handler_is_refused(tmp_path):
    with pytest.raises(new_handler.CannotWrite, match="DJPS has a handler 'noop' of its own"):
        new_handler.write("noop", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_looks_like_a_tests_is_no_test_to_pytest(tmp_path):
    handler, test = new_handler.write("test", tmp_path)
    assert (handler.name, test.name) == ("job_test_handler.py", "test_job_test_handler.py")


@pytest.mark.parametrize("taken", ["send_email_handler.py", "test_send_email_handler.py"])
def test_nothing_is_written_over(tmp_path, taken):
    (tmp_path / taken).write_text("mine")
    with pytest.raises(new_handler.CannotWrite, match=f"there is already {taken}; nothing was written"):
        new_handler.write("send-email", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [taken]
    assert (tmp_path / taken).read_text() == "mine"


def test_a_folder_that_is_not_there_is_said(tmp_path):
    with pytest.raises(new_handler.CannotWrite, match="cannot be written: No such file"):
        new_handler.write("send-email", tmp_path / "gone")


def test_it_is_said_what_was_written_and_how_to_go_on(tmp_path):
    handler, test = new_handler.write("send-email", tmp_path)
    ast.parse(handler.read_text())
    assert new_handler.told(handler, test).splitlines() == [
        "wrote send_email_handler.py and test_send_email_handler.py",
        f"test it: python3 -m ops test {tmp_path}/test_send_email_handler.py",
        f"run it:  PYTHONPATH={tmp_path} HANDLERS=send_email_handler python3 -m ops up",
    ]
    here = new_handler.told(new_handler.ROOT / "a_handler.py", new_handler.ROOT / "test_a_handler.py")
    assert "python3 -m ops test test_a_handler.py" in here
    assert "PYTHONPATH=. HANDLERS=a_handler" in here
