"""Makes the hash-locked requirements from `ops/lock/*.in`, without the address of any index."""

from __future__ import annotations

import subprocess
import sys

from ops.stack.venv import ROOT

#: What is made from what, in the order in which they build on each other.
FILES = (
    ("ops/lock/run.in", "requirements.txt"),
    ("ops/lock/up.in", "ops/requirements.txt"),
    ("ops/lock/test.in", "tests/requirements.txt"),
)
#: The oldest Python the locks hold for.
PYTHON = "3.11"


def lock() -> int:
    """Resolves anew; returns the exit code of the first resolution that failed, or 0."""
    for source, target in FILES:
        print(f"{source} -> {target}", flush=True)
        done = subprocess.run(
            [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--universal", "--upgrade"]
            + ["--python-version", PYTHON, "--generate-hashes", "--no-header", source, "-o", target],
            cwd=ROOT,
            check=False,
            timeout=600,
        )
        if done.returncode != 0:
            return done.returncode
    return 0
