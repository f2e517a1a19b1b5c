"""What the fault suite switches on inside the processes: every sweep there is can be made to raise."""

from __future__ import annotations

from pathlib import Path

import pytest

from ops.chaos.switches import sweep_parts
from tasks import sweeps

#: What each sweep runs is a function `run_...`; this one runs another sweep's.
RUNS_ANOTHERS = {"late_callbacks"}


def sweep_modules():
    folder = Path(sweeps.__file__).parent
    return [path.stem for path in sorted(folder.glob("*.py")) if "\n@sweep(" in path.read_text()]


@pytest.mark.parametrize("module", [name for name in sweep_modules() if name not in RUNS_ANOTHERS])
def test_every_sweep_has_a_part_that_can_be_made_to_raise(module):
    assert module in {owner.__name__.rpartition(".")[2] for owner, _ in sweep_parts()}


def test_each_part_is_called_by_its_name_in_its_module():
    for owner, name in sweep_parts():
        source = Path(owner.__file__).read_text()
        assert source.count(f"{name}(") > 1, f"{owner.__name__}.{name} is not called there"
