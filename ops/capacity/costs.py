"""What one job costs each part of DJPS, as it was measured."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any


class CostsError(ValueError):
    """A file with costs cannot be used; the message says why."""


@dataclass(frozen=True, slots=True)
class Costs:
    """What one job costs that has a message to itself; the defaults are those of `ops/docs/operating.md`.

    Args:
        api_ms: CPU of the API for one POST, milliseconds.
        parent_ms: CPU of the worker's parent, which fetches and acknowledges the message, milliseconds.
        child_ms: CPU of the child beside the handler's own, milliseconds.
        held_ms: how long a child is held by a job beside the handler's own time, milliseconds.
        database_ms: CPU of PostgreSQL from the INSERT to the settled row, milliseconds.
        upkeep_ms: CPU of the maintenance worker and beat, milliseconds; most of it is there without jobs.
        delivery_ms: from the commit of a submission to its claim by an idle worker, milliseconds.
        commits: transactions from the INSERT to the settled row.
        wal_kib: what is written ahead, KiB.
        row_kib: what a finished job takes in tables and indexes, KiB.
        api_mib: memory of a gunicorn worker, MiB; this and the next three are PSS.
        parent_mib: memory of a worker's parent, MiB.
        child_mib: memory of a child beside the handler's own, MiB.
        upkeep_mib: memory of a maintenance worker and beat, MiB.
    """

    api_ms: float = 1.6
    parent_ms: float = 1.5
    child_ms: float = 1.0
    held_ms: float = 2.7
    database_ms: float = 1.3
    upkeep_ms: float = 0.5
    delivery_ms: float = 6.8
    commits: float = 3.0
    wal_kib: float = 2.0
    row_kib: float = 1.5
    api_mib: float = 80.0
    parent_mib: float = 75.0
    child_mib: float = 25.0
    upkeep_mib: float = 160.0

    def changed(self, **values: float) -> Costs:
        """The same with some other values."""
        return replace(self, **values)


#: Parts of the system whose CPU time `ops bench` measures under a stream of jobs.
_PARTS = ("api", "parent", "child", "upkeep", "database")
#: The children of the worker that `ops bench` measures.
_BENCH_CHILDREN = 2


def read(file: Path) -> Costs:
    """Reads costs from what `ops capacity --trial --json` or `ops bench --json FILE` wrote.

    The bench does not measure all of them; those it leaves out keep their defaults.

    Raises:
        CostsError: the file cannot be read, or has no figure of either kind.
    """
    try:
        found: Any = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise CostsError(f"{file} cannot be read as JSON: {error}") from error
    if not isinstance(found, dict):
        raise CostsError(f"{file} must hold a JSON object (given: {type(found).__name__})")
    names = {field.name for field in fields(Costs)}
    given = {name: value for name, value in found.get("costs", {}).items() if name in names}
    if not given:
        given = _of_bench(found.get("figures", found))
    if not given:
        raise CostsError(f"{file} has neither `costs` of a trial nor figures of `ops bench`")
    wrong = {
        name: value for name, value in given.items() if not isinstance(value, int | float) or not value > 0
    }
    if wrong:
        name, value = next(iter(wrong.items()))
        raise CostsError(f"{file}: {name} must be a number above 0 (given: {value!r})")
    return Costs().changed(**given)


def _of_bench(figures: dict[str, Any]) -> dict[str, float]:
    given = {f"{part}_ms": figures[name] for part in _PARTS if (name := f"together_{part}_cpu_ms") in figures}
    if figures.get("single_per_s"):
        given["held_ms"] = 1000 * _BENCH_CHILDREN / figures["single_per_s"]
    if figures.get("idle_start_ms_p50"):
        given["delivery_ms"] = figures["idle_start_ms_p50"]
    return given
