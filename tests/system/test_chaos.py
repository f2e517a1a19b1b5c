"""The fault suite's short run: a whole system, broken in a few ways, keeps its promises."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.system

ROOT = Path(__file__).resolve().parents[2]
#: Always the same, so that a failure can be had again.
SEED = "20261124"
#: Test machines are shared, so response times get this much more; nothing else does.
SLACK = "3"


def test_nothing_is_lost_and_nothing_is_done_twice(tmp_path):
    outcome = tmp_path / "chaos.json"
    done = subprocess.run(
        [sys.executable, "-m", "ops", "chaos", "--seed", SEED, "--slack", SLACK, "--json", str(outcome)],
        cwd=ROOT,
        env=os.environ,
        check=False,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    found = json.loads(outcome.read_text())
    assert sum(one["jobs"] for one in found["scenarios"]) >= 500
    assert all(one["faults"] >= 1 and one["passed"] for one in found["scenarios"])
    assert not any(sum(one["counts"].values()) for one in found["scenarios"])


def test_a_scenario_that_does_not_exist_is_named():
    done = subprocess.run(
        [sys.executable, "-m", "ops", "chaos", "no-such-fault"],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, "no scenario named no-such-fault" in done.stdout) == (2, True)
