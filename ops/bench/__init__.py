"""`python3 -m ops bench`: this system against other job queues, in one run on the same servers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def run(quick: bool, json_path: Path | None, only: Sequence[str] = (), plots: bool = False) -> int:  # noqa: FBT001, FBT002 - named by its caller
    """Measures, shows a table, writes JSON; returns the exit code: 0, or 1 when nothing could be measured.

    Args:
        quick: one round and small sizes, within two minutes.
        json_path: where every figure goes.
        only: scenarios (`post ours peers size waiting prune size-huge upgrade bloat settings access schedules groups batches`) and peers to measure; empty for the usual ones.
        plots: draws the figures as PNGs into `ops/docs/performance/`.
    """
    from ops.bench import rounds  # noqa: PLC0415 - the floors' processes import this package for nothing else

    return rounds.run(quick, json_path, only, plots_wanted=plots)


def compare(commit: str, rounds: int, only: Sequence[str], json_path: Path | None) -> int:
    """Measures another commit in turns with this tree; returns the exit code.

    Args:
        commit: as git names it.
        rounds: how often each is measured.
        only: scenarios, as `run` takes them; what is this system's alone when empty.
        json_path: where the figures of every round go.
    """
    from ops.bench import against  # noqa: PLC0415 - as above

    return against.run(commit, rounds, only, json_path)
