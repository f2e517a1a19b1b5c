"""Errors that nothing catches are lines of the log, not tracebacks between them."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

START = """
import threading
from webapp.infra.telemetry import logs
logs.configure("INFO")
logs.catch_strays()
class Broken:
    def __del__(self):
        raise ValueError("finalized")
def fail():
    raise KeyError("in a thread")
"""


@pytest.mark.parametrize(
    ("code", "message", "error"),
    [
        ("threading.Thread(target=fail, name='t').start()", "thread failed", "KeyError: 'in a thread'"),
        ("Broken()", "error that nothing could catch", "ValueError: finalized"),
    ],
)
def test_a_stray_error_is_a_line(code, message, error):
    done = subprocess.run([sys.executable, "-c", START + code], capture_output=True, text=True, check=True)
    (line,) = [json.loads(one) for one in done.stderr.splitlines()]
    assert (line["level"], line["message"]) == ("ERROR", message)
    assert line["exc_info"].endswith(error)
