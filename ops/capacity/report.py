"""A plan and a trial, in words and numbers."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from ops.capacity.costs import Costs
from ops.capacity.model import Load, Plan
from ops.capacity.trial import Outcome


def finite(plan: Plan) -> dict[str, Any]:
    """A plan for JSON, which has no infinity: null where jobs wait without end."""
    found = asdict(plan)
    found["waits"] = {
        name: None if isinstance(value, float) and math.isinf(value) else value
        for name, value in found["waits"].items()
    }
    return found


def _seconds(value: float) -> str:
    if math.isinf(value):
        return "without end"
    return f"{1000 * value:,.0f} ms" if value < 1 else f"{value:,.1f} s"


def _busy(share: float) -> str:
    """How busy something is; where more is asked of it than it can do, how many times as much is needed."""
    return f"{share:.0%} busy" if share <= 1 else f"all busy: {share:,.1f} times as many are needed"


def plan(load: Load, costs: Costs, made: Plan) -> str:
    """A plan as a table of two columns."""
    waits = made.waits
    rows = [
        (
            "load",
            f"{load.rate:,.4g} jobs/s of {_seconds(load.run_seconds)}, variability {load.variability:g}",
        ),
        ("objective", f"{load.objective_share:.4g} of the jobs start within {load.objective_seconds:g} s"),
        ("children needed", f"{made.children_needed:,}"),
        ("children looked at", f"{waits.children:,}, {_busy(waits.utilisation)}"),
        ("wait mean / p50 / p99", " / ".join(_seconds(one) for one in (waits.mean, waits.p50, waits.p99))),
        ("start in time", f"{waits.within_objective:.2%}"),
        ("worker processes, at least", f"{made.worker_processes:,}"),
        ("gunicorn workers, at least", f"{made.api_processes:,}"),
        ("PostgreSQL's processors", f"{load.database_cores:g}, {_busy(made.database_share)}"),
        ("commits", f"{made.commits_per_s:,.0f}/s"),
        ("written ahead", f"{made.wal_mib_per_s:,.2f} MiB/s"),
        ("tables grow by", f"{made.gib_a_day:,.1f} GiB a day"),
        ("PostgreSQL is the limit at", f"{made.limit_rate:,.0f} jobs/s, a message each"),
    ]
    width = max(len(name) for name, _ in rows)
    lines = [f"{name.ljust(width)}  {value}" for name, value in rows]
    if made.database_share > 1:
        lines.append('PostgreSQL cannot do this: see "How far it goes" in ops/docs/operating.md')
    return "\n".join(lines)


def trial(outcome: Outcome) -> str:
    """What a trial found, as a Markdown table, and the costs it measured."""
    lines = [
        "| variability | busy | jobs | p50 predicted | measured | p99 predicted | measured |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {one.variability:g} | {one.utilisation:.0%} | {one.jobs:,} | {one.predicted_p50:.1f} ms |"
        f" {one.measured_p50:.1f} ms | {one.predicted_p99:.1f} ms | {one.measured_p99:.1f} ms |"
        for one in outcome.streams
    ]
    lines += ["", "costs of a job:"]
    lines += [f"  {name} {value:.3g}" for name, value in asdict(outcome.costs).items()]
    return "\n".join(lines)
