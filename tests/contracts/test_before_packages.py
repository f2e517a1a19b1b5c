"""What `python3 -m ops` does before anything is installed needs nothing that is installed."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

from ops import __main__ as program
from ops.stack import venv

ROOT = Path(__file__).resolve().parents[2]


def test_the_command_line_is_read_without_any_package():
    done = subprocess.run(
        [
            sys.executable,
            "-S",
            "-I",
            "-c",
            f"import sys; sys.path.insert(0, {str(ROOT)!r}); import ops.__main__",
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


def test_a_taken_port_is_named_before_pip_runs(monkeypatch, capsys):
    def enter(*_):
        raise AssertionError("it went on to install packages")

    monkeypatch.setattr(venv, "lacks", lambda _: True)
    monkeypatch.setattr(venv, "enter", enter)
    monkeypatch.setenv("DJPS_ENV_FILE", "")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setenv("API_PORT", str(taken.getsockname()[1]))
        assert program.main(["up"]) == 1
    said = capsys.readouterr().err
    assert "is in use; stop what listens there or set API_PORT" in said
    assert len(said.splitlines()) == 1
