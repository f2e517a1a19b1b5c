"""What a run prints and writes: a line for each scenario, and everything as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(slots=True)
class Row:
    """The outcome of one scenario."""

    name: str
    what: str
    seed: int
    jobs: int = 0
    requests: int = 0
    faults: int = 0
    attempts: int = 0
    restarts: int = 0
    seconds: float = 0.0
    affected: int = 0
    recovery_p50: float | None = None
    recovery_p99: float | None = None
    within: float = 0.0
    post_p99_ms: float | None = None
    post_p99_ms_in_fault: float | None = None
    refused_p99_ms: float | None = None
    overlaps_allowed: int = 0
    followed: dict[str, int] = field(default_factory=dict)
    told_p99_ms: float | None = None
    counts: dict[str, int] = field(default_factory=dict)
    findings: list[str] = field(default_factory=list)
    skipped: str = ""

    @property
    def passed(self) -> bool:
        """True when nothing was found."""
        return not self.findings


HEADER = (
    f"{'scenario':24} {'jobs':>6} {'attempts':>8} {'faults':>6} {'restarts':>8} {'hit':>6} {'p50 s':>6} {'p99 s':>6}"
    f" {'bar':>5} {'POST p99':>9}  verdict"
)


def line(row: Row) -> str:
    """One scenario in one line."""
    return (
        f"{row.name:24} {row.jobs:6} {row.attempts:8} {row.faults:6} {row.restarts:8} {row.affected:6}"
        f" {_seconds(row.recovery_p50)} {_seconds(row.recovery_p99)} {row.within:5.0f}"
        f" {_milliseconds(row.post_p99_ms_in_fault)}  {_verdict(row)}"
    )


def _verdict(row: Row) -> str:
    if row.skipped:
        return f"skipped: {row.skipped}"
    return "ok" if row.passed else "FAILED"


def followed(row: Row) -> list[str]:
    """What those who followed and steered were told, where there were any."""
    if not row.followed:
        return []
    answers = ", ".join(f"{count} x {name}" for name, count in sorted(row.followed.items()))
    return [f"told of the end within {_milliseconds(row.told_p99_ms).strip()} at p99; {answers}"]


def _seconds(value: float | None) -> str:
    return f"{value:6.1f}" if value is not None else f"{'-':>6}"


def _milliseconds(value: float | None) -> str:
    return f"{value:6.0f} ms" if value is not None else f"{'-':>9}"


def percentile(values: list[float], share: float) -> float | None:
    """The value below which `share` of the values lie (nearest rank); None of none."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def summary(rows: list[Row]) -> list[str]:
    """The totals, one sentence each."""
    kinds: dict[str, int] = {}
    for row in rows:
        for name, count in row.counts.items():
            kinds[name] = kinds.get(name, 0) + count
    found = ", ".join(f"{name}: {count}" for name, count in sorted(kinds.items()) if count)
    return [
        (
            f"{sum(row.jobs for row in rows)} jobs, {sum(row.faults for row in rows)} faults,"
            f" {sum(row.attempts for row in rows)} attempts in {len(rows)} scenarios;"
            f" overlaps under the stated exception: {sum(row.overlaps_allowed for row in rows)}"
        ),
        f"violations: {found or 'none of any kind'}",
    ]


_COLUMNS = (
    "scenario",
    "what happens",
    "jobs",
    "faults",
    "jobs hit",
    "recovery p50",
    "p99",
    "bar",
    "violations",
)


def table(rows: list[Row]) -> str:
    """The outcome as a Markdown table, for `ops/docs/reliability.md`; times in seconds."""
    lines = [f"| {' | '.join(_COLUMNS)} |", "|---" * len(_COLUMNS) + "|"]
    lines += [
        f"| `{row.name}` | {row.what} | {row.jobs:,} | {row.faults} | {row.affected:,} | {_seconds(row.recovery_p50).strip()}"
        f" | {_seconds(row.recovery_p99).strip()} | {row.within:.0f} | {'; '.join(row.findings) or row.skipped or 'none'} |"
        for row in rows
    ]
    return "\n".join((*lines, "", *summary(rows), ""))


def write(path: Path, rows: list[Row], about: dict[str, Any]) -> None:
    """Writes the whole outcome: as a table where the file's name ends in `.md`, else as JSON."""
    if path.suffix == ".md":
        path.write_text(table(rows))
        return
    document = about | {"scenarios": [asdict(row) | {"passed": row.passed} for row in rows]}
    path.write_text(json.dumps(document, indent=2) + "\n")
