"""`ops load` against the processes of the system tests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ops.stack import ports

pytestmark = pytest.mark.system

ROOT = Path(__file__).resolve().parents[2]


def load(*words):
    return subprocess.run(
        [sys.executable, "-m", "ops", "load", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


def test_a_short_smoke_is_green_and_both_sides_agree(fleet):
    done = load("smoke", "--url", fleet.url, "--duration", "4s", "--no-refusals")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "smoke: every threshold held" in done.stdout
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert lines.count("accepted 3") == 2
    assert "completed 3" in lines


def test_without_a_system_it_is_one_clear_sentence():
    done = load("smoke", "--url", f"http://127.0.0.1:{ports.free()}")
    assert done.returncode == 1
    assert "no DJPS answers" in done.stderr
    assert "Traceback" not in done.stderr
