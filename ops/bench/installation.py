"""Installing what peers need: where it goes, how long a step may take, and whether it is already there."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from ops.bench.processes import BenchError
from ops.stack.venv import ROOT

#: Where the peers' packages are, apart from the project's own.
HOME = ROOT / ".djps" / "bench"
#: Seconds one step may take.
PATIENCE = 600.0
#: Characters of a failure that are shown.
SHOWN = 300


class Marker:
    """The file that says what a folder was filled with; it is written last.

    Args:
        folder: what is filled.
        sources: the files that say with what.
    """

    def __init__(self, folder: Path, *sources: Path) -> None:
        self._path = folder / "bench-installed"
        self._digest = hashlib.sha256(b"\0".join(source.read_bytes() for source in sources)).hexdigest()

    def fits(self) -> bool:
        """Whether the folder was filled completely, and with what the sources say now."""
        return self._path.exists() and self._path.read_text() == self._digest

    def write(self) -> None:
        """Notes that the folder is filled."""
        self._path.write_text(self._digest)


def step(words: Sequence[str], more: Mapping[str, str] | None = None) -> None:
    """Runs one step of an installation.

    Args:
        words: the command.
        more: variables besides this process's own.

    Raises:
        BenchError: it failed, or took too long.
    """
    environment = {
        key: value for key, value in os.environ.items() if key not in {"VIRTUAL_ENV", "PYTHONPATH"}
    }
    try:
        done = subprocess.run(
            words,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
            cwd=ROOT,
            env=environment | dict(more or {}),
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BenchError(f"installation failed: {error}") from error
    if done.returncode != 0:
        raise BenchError(f"installation failed: {' '.join(done.stderr.split())[-SHOWN:]}")
