"""`python3 -m ops chaos`: breaks a whole DJPS in every way we know, and checks that nothing is lost or done twice."""

from __future__ import annotations

import argparse
import secrets

from ops.chaos import mutants, run
from ops.chaos.scenarios import SCENARIOS, SHORT

#: Seeds are printed and typed, so they are short.
SEEDS = 1_000_000


def main(wanted: argparse.Namespace) -> int:
    """Runs what was asked for; returns 0 when every promise was kept (or, for mutants, broken and noticed)."""
    if wanted.list:
        for scenario in SCENARIOS.values():
            print(f"{scenario.name:24} {scenario.what}")
        return 0
    seed = secrets.randbelow(SEEDS) if wanted.seed is None else wanted.seed
    if wanted.mutants:
        return mutants.run(seed)
    names = list(SCENARIOS) if wanted.all else wanted.names or list(SHORT)
    unknown = sorted(set(names) - set(SCENARIOS))
    if unknown:
        print(
            f"ops: there is no scenario named {', '.join(unknown)}; `python3 -m ops chaos --list` names them"
        )
        return 2
    return run.run(names, seed, wanted.json, slack=wanted.slack, keep=wanted.keep)
