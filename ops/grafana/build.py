"""Writes the dashboards as JSON, in the form that Grafana loads."""

from __future__ import annotations

import json
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from ops.grafana.overview import overview
from ops.grafana.task import task
from ops.grafana.workers import workers

#: Where Grafana's provisioning reads them.
FOLDER = Path(__file__).parent / "dashboards"


def dashboards() -> dict[str, str]:
    """The JSON of every dashboard, by file name."""
    return {
        f"{name}.json": json.dumps(json.loads(_encoded(made)), indent=2, sort_keys=True) + "\n"
        for name, made in (("overview", overview()), ("workers", workers()), ("task", task()))
    }


def _encoded(made: object) -> str:
    return JSONEncoder().encode(made.build())  # type: ignore[attr-defined]


def write() -> int:
    """Writes them; returns the exit code."""
    for name, text in dashboards().items():
        (FOLDER / name).write_text(text)
        print(f"wrote {FOLDER / name}")
    return 0
