"""Makes the hash-locked requirements from `ops/lock/*.in`, and npm's lock files, without the address of any index."""

from __future__ import annotations

import shutil
import subprocess
import sys

from ops.bench import npm
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
#: Seconds one resolution may take.
PATIENCE = 600.0


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
            timeout=PATIENCE,
        )
        if done.returncode != 0:
            return done.returncode
    return _lock_npm(upgrade=upgrade)


def _lock_npm(*, upgrade: bool) -> int:
    """The same for npm's packages, whose own versions stay as `package.json` names them."""
    if shutil.which("npm") is None:
        print("npm is not on PATH: its lock files stay as they are")
        return 0
    for folder in npm.FOLDERS.values():
        source, target = (folder / file for file in npm.FILES)
        print(f"{source.relative_to(ROOT)} -> {target.relative_to(ROOT)}", flush=True)
        if upgrade:
            target.unlink(missing_ok=True)
        command = ["npm", "install", "--package-lock-only", "--prefix", str(folder), "--silent", *npm.OPTIONS]
        done = subprocess.run(command, cwd=ROOT, check=False, timeout=PATIENCE)
        if done.returncode != 0:
            return done.returncode
        target.write_text(npm.without_addresses(target.read_text()))
    return 0
