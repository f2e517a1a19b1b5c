"""The plots of a run: drawn by a process in the peers' environment, which has matplotlib."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from ops.bench import runtimes
from ops.bench.processes import BenchError, call
from ops.stack.venv import ROOT

FOLDER = ROOT / "ops" / "docs" / "performance"
#: Seconds drawing may take; the first time it collects the fonts.
DRAW_PATIENCE = 120.0


def draw(json_path: Path, say: Callable[[str], None]) -> None:
    """Draws what a run's JSON holds as PNGs; says so when that cannot be done."""
    try:
        python = runtimes.ready("peers", say).program
        FOLDER.mkdir(parents=True, exist_ok=True)
        script = Path(__file__).with_name("charts.py")
        call([str(python), str(script), str(json_path), str(FOLDER)], os.environ, ROOT, DRAW_PATIENCE)
    except (BenchError, OSError) as error:
        say(f"no plots: {error}")
    else:
        say(f"plots are in {FOLDER.relative_to(ROOT)}")
