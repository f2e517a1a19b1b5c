from __future__ import annotations

import importlib
import math
from pathlib import Path

import pytest

from webapp.infra.telemetry import metrics
from webapp.settings.sweeps import SWEEPS, SweepPlan

ROOT = Path(__file__).resolve().parents[2]
FILES = {"dispatch_due": "dispatch", "deliver_callbacks": "callbacks", "recover_stuck": "recover"}


def line_of(plan: SweepPlan) -> str:
    """The plan as a line of the table."""
    every = f"`{plan.period}`" if isinstance(plan.period, str) else f"{plan.period:g} s"
    batch = f"{plan.batch:,}" if plan.batch else "all it finds"
    end = (
        f"{plan.rows:,} rows"
        if plan.rows < math.inf
        else f"{plan.seconds:g} s"
        if plan.seconds < math.inf
        else "the last row"
    )
    return f"| `{plan.name}` | {every} | {batch} | {end} | {plan.does} |"


def test_the_table_has_every_sweep_as_it_is():
    page = (ROOT / "ops/docs/operating.md").read_text()
    section = page.partition("## What beat asks for")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| `")]
    assert lines == [line_of(plan) for plan in SWEEPS]


@pytest.mark.parametrize("plan", SWEEPS, ids=lambda plan: plan.name)
def test_each_sweep_has_a_file_with_its_plan_and_its_task(plan):
    module = importlib.import_module(f"tasks.sweeps.{FILES.get(plan.name, plan.name)}")
    assert module.PLAN is plan
    assert getattr(module, plan.name).name == f"tasks.{plan.name}"


def test_the_counters_know_every_sweep_and_the_dead_letter_task():
    assert (*(plan.name for plan in SWEEPS), "bury_job") == metrics.SWEEPS
