"""What `ops capacity` prints: the plan for a load, a table of four, or the outcome of the trial."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, replace

from ops.bench.processes import BenchError
from ops.capacity import costs, model, report, trial

#: Jobs a second of the lines that `--scale` prints.
SCALE = (10.0, 100.0, 1_000.0, 10_000.0)


def main(wanted: argparse.Namespace) -> int:
    """Prints a plan for the load that was asked about, or runs the trial; returns the exit code."""
    try:
        if wanted.trial:
            outcome = trial.run(lambda line: print(line, file=sys.stderr, flush=True))
            print(json.dumps(asdict(outcome), indent=2) if wanted.json else report.trial(outcome))
            return 0
        known = costs.read(wanted.costs) if wanted.costs else costs.Costs()
        load = model.Load(
            rate=wanted.rate,
            run_seconds=wanted.run,
            variability=wanted.variability,
            objective_seconds=wanted.within,
            objective_share=wanted.share,
            database_cores=wanted.cores,
            kept_days=wanted.days,
        )
        if wanted.scale:
            loads = [replace(load, rate=rate) for rate in SCALE]
            print(report.scale([(one, model.plan(one, known)) for one in loads]))
            return 0
        plan = model.plan(load, known, wanted.children)
    except (costs.CostsError, model.LoadError, BenchError) as error:
        print(f"ops: {error}", file=sys.stderr)
        return 1
    if wanted.json:
        print(
            json.dumps({"load": asdict(load), "costs": asdict(known), "plan": report.finite(plan)}, indent=2)
        )
    else:
        print(report.plan(load, known, plan))
    return 0
