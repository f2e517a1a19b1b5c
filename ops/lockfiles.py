"""Makes the hash-locked requirements from `ops/lock/*.in`, without the address of any index."""

from __future__ import annotations

import subprocess
import sys

from ops.stack.venv import ROOT

#: What is made from what, for which oldest Python, in the order in which they build on each other.
FILES = (
    ("ops/lock/run.in", "requirements.txt", "3.11"),
    ("ops/lock/up.in", "ops/requirements.txt", "3.11"),
    ("ops/lock/load.in", "ops/load/requirements.txt", "3.11"),
    ("ops/lock/test.in", "tests/requirements.txt", "3.11"),
    ("ops/lock/bench.in", "ops/bench/requirements.txt", "3.11"),
    ("ops/lock/oban.in", "ops/bench/requirements-oban.txt", "3.12"),
    ("ops/lock/saq.in", "ops/bench/requirements-saq.txt", "3.11"),
)


def lock(*, upgrade: bool = False) -> int:
    """Resolves anew; returns the exit code of the first resolution that failed, or 0.

    Args:
        upgrade: take the newest versions; else those that are locked stay, where what was added allows them.
    """
    for source, target, python in FILES:
        print(f"{source} -> {target}", flush=True)
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "uv",
                "pip",
                "compile",
                "--quiet",
                "--universal",
                *(["--upgrade"] * upgrade),
            ]
            + ["--python-version", python, "--generate-hashes", "--no-header", source, "-o", target],
            cwd=ROOT,
            check=False,
            timeout=600,
        )
        if done.returncode != 0:
            return done.returncode
    return 0
