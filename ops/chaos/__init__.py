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
    known = {one.name: one.what for one in (mutants.MUTANTS if wanted.mutants else SCENARIOS.values())}
    if wanted.list:
        for name, what in known.items():
            print(f"{name:24} {what}")
        return 0
    seed = secrets.randbelow(SEEDS) if wanted.seed is None else wanted.seed
    if unknown := sorted(set(wanted.names) - set(known)):
        kind, option = ("mutant", " --mutants") if wanted.mutants else ("scenario", "")
        print(
            f"ops: there is no {kind} named {', '.join(unknown)}; `python3 -m ops chaos --list{option}` names them"
        )
        return 2
    if wanted.mutants:
        return mutants.run(seed, wanted.names)
    names = list(SCENARIOS) if wanted.all else wanted.names or list(SHORT)
    return run.run(names, seed, wanted.json, slack=wanted.slack, keep=wanted.keep)
