"""A plan and a trial, in words and numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ops.capacity.costs import Costs
from ops.capacity.model import Load, Plan
from ops.capacity.trial import Outcome

MILLION = 1_000_000
SCALE_HEAD = (
    "jobs/s",
    "jobs kept",
    "GiB kept",
    "GiB written ahead a day",
    "PostgreSQL's cores",
    "other cores",
    "memory, GiB",
    "children",
    "workers",
    "gunicorn",
)


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
        ("written ahead", f"{made.wal_mib_per_s:,.2f} MiB/s, {made.wal_gib_a_day:,.1f} GiB a day"),
        ("processors beside PostgreSQL's", f"{made.application_cores:,.1f}, and what handlers compute"),
        ("memory beside PostgreSQL's", f"{made.memory_gib:,.1f} GiB, and what handlers keep"),
        ("tables grow by", f"{made.gib_a_day:,.1f} GiB a day"),
        (
            f"kept for {load.kept_days:g} days",
            f"{made.rows_kept / MILLION:,.1f} million jobs, {made.gib_kept:,.0f} GiB",
        ),
        ("PostgreSQL is the limit at", f"{made.limit_rate:,.0f} jobs/s, a message each"),
    ]
    width = max(len(name) for name, _ in rows)
    lines = [f"{name.ljust(width)}  {value}" for name, value in rows]
    if made.database_share > 1:
        lines.append('PostgreSQL cannot do this: see "How far it goes" in ops/docs/operating.md')
    return "\n".join(lines)


def scale(plans: Sequence[tuple[Load, Plan]]) -> str:
    """What some loads need, as a Markdown table with a line for each."""
    lines = [f"| {' | '.join(SCALE_HEAD)} |", "|---" * len(SCALE_HEAD) + "|"]
    lines += [
        f"| {load.rate:,g} | {made.rows_kept / MILLION:,.0f} M | {made.gib_kept:,.0f} | {made.wal_gib_a_day:,.0f} |"
        f" {made.database_cores:,.2f} | {made.application_cores:,.2f} | {made.memory_gib:,.1f} |"
        f" {made.children_needed:,} | {made.worker_processes:,} | {made.api_processes:,} |"
        for load, made in plans
    ]
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
