"""This tree against another commit of it: what a change cost, measured in turns on one machine."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ops.bench.figures import Round, Spread, rounded, spread
from ops.bench.processes import BenchError, call
from ops.stack.venv import ROOT

#: What is measured when nothing else is said: everything that is this system's alone.
ONLY = ("ours",)
#: Seconds one tree gets for one round, ...
ROUND_PATIENCE = 900.0
#: ... and git for one command.
GIT_PATIENCE = 60.0
#: One round of a tree, by its own bench: what it prints is its own affair.
_ROUND = (
    "import sys; from pathlib import Path; from ops.bench import rounds;"
    " sys.exit(rounds.run(True, Path(sys.argv[1]), tuple(sys.argv[2:])))"
)


def run(commit: str, rounds: int, only: Sequence[str], json_path: Path | None) -> int:
    """Measures both in turns, shows a table, writes JSON; returns the exit code.

    Both run with this tree's virtual environment, so a commit with other requirements is measured with ours.

    Args:
        commit: as git names it.
        rounds: how often each is measured; at least 1.
        only: scenarios and peers, as `bench --only` takes them; `ONLY` when empty.
        json_path: where the figures of every round go.
    """
    found: dict[str, list[Round]] = {"before": [], "now": []}
    try:
        with _checked_out(commit) as tree, tempfile.TemporaryDirectory(prefix="djps-against-") as folder:
            for number in range(rounds):
                for name, where in (("before", tree), ("now", ROOT)):
                    print(f"round {number + 1} of {rounds}: {name}", flush=True)
                    found[name].append(_round(where, Path(folder) / "round.json", tuple(only) or ONLY))
    except BenchError as error:
        print(f"bench: {error}")
        return 1
    if json_path is not None:
        json_path.write_text(json.dumps({"commit": commit, **found}, indent=1) + "\n")
    print(table(commit, found["before"], found["now"]))
    return 0


@contextlib.contextmanager
def _checked_out(commit: str) -> Iterator[Path]:
    """A work tree of the commit, for the length of a block.

    Raises:
        BenchError: git knows no such commit.
    """
    with tempfile.TemporaryDirectory(prefix="djps-against-") as folder:
        tree = Path(folder) / "tree"
        _git("worktree", "add", "--detach", str(tree), f"{commit}^{{commit}}")
        try:
            yield tree
        finally:
            _git("worktree", "remove", "--force", str(tree))


def _git(*words: str) -> None:
    done = subprocess.run(
        ["git", *words], cwd=ROOT, capture_output=True, text=True, check=False, timeout=GIT_PATIENCE
    )
    if done.returncode != 0:
        raise BenchError(f"git {words[0]} failed: {done.stderr.strip()[-200:]}")


def _round(tree: Path, file: Path, only: Sequence[str]) -> Round:
    """Measures a tree once; returns its figures.

    Raises:
        BenchError: nothing was measured.
    """
    environment = os.environ | {"PYTHONPATH": str(tree)}
    call([sys.executable, "-c", _ROUND, str(file), *only], environment, tree, ROUND_PATIENCE)
    measured: Round = json.loads(file.read_text())["rounds"][0]
    return measured


def ratios(before: Sequence[Mapping[str, float]], now: Sequence[Mapping[str, float]]) -> dict[str, Spread]:
    """How many times what it was each figure is, round by round; figures that both have in every round. Pure.

    Example:
        >>> ratios([{"a": 2.0}, {"a": 4.0}], [{"a": 3.0, "b": 1.0}, {"a": 4.0}])
        {'a': Spread(median=1.25, low=1.0, high=1.5)}
    """
    keys = [key for key in before[0] if all(one.get(key) for one in (*before, *now))]
    pairs = list(zip(before, now, strict=True))
    return {key: spread([after[key] / earlier[key] for earlier, after in pairs]) for key in keys}


def table(commit: str, before: Sequence[Mapping[str, float]], now: Sequence[Mapping[str, float]]) -> str:
    """What a terminal shows: medians of both, and the ratios of the rounds."""
    lines = [
        "",
        f"{'median of ' + str(len(now)):<30}{commit[:12]:>12}{'now':>12}   now / before (smallest .. largest)",
    ]
    for key, ratio in ratios(before, now).items():
        values = "".join(
            f"{rounded(spread([one[key] for one in rounds]).median):>12,g}" for rounds in (before, now)
        )
        lines.append(f"{key:<30}{values}   {ratio.median:.2f}  ({ratio.low:.2f} .. {ratio.high:.2f})")
    return "\n".join(lines)
