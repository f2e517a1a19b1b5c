"""The page about reliability shows the outcome of every scenario and every mutant of the fault suite."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ops.chaos import report
from ops.chaos.report import Row
from ops.chaos.scenarios import SCENARIOS

PAGE = (Path(__file__).resolve().parents[2] / "ops" / "docs" / "reliability.md").read_text()


@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_every_scenario_has_a_row(name):
    (row,) = re.findall(rf"^\| `{name}` \|.*\| none \|$", PAGE, re.MULTILINE)
    assert SCENARIOS[name].what in row


def test_the_table_is_what_the_command_writes(tmp_path):
    row = Row(
        "calm",
        "no fault at all",
        1,
        jobs=1_401,
        affected=81,
        recovery_p50=0.04,
        recovery_p99=0.2,
        within=17.0,
    )
    report.write(tmp_path / "outcome.md", [row], {})
    written = (tmp_path / "outcome.md").read_text().splitlines()
    assert written[2] == "| `calm` | no fault at all | 1,401 | 0 | 81 | 0.0 | 0.2 | 17 | none |"
    assert written[0] in PAGE
