"""Figures of a run: percentiles, medians with their spread, ratios between systems. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

#: What one round measured, by key; a key that is missing was not measured.
Round = dict[str, float]

#: Clients of the POST figures that ratios are taken at.
RATIO_CLIENTS = 16

#: A ratio is the first figure over the largest of the others, within the same round.
RATIOS: dict[str, tuple[str, tuple[str, ...]]] = {
    "post_vs_insert_only": (f"post_{RATIO_CLIENTS}_per_s", (f"insert_only_{RATIO_CLIENTS}_per_s",)),
    "post_vs_forerunner": (f"post_{RATIO_CLIENTS}_per_s", (f"forerunner_{RATIO_CLIENTS}_per_s",)),
    "backlog_vs_pgqueuer": (
        "backlog_per_s",
        ("pgqueuer_default_per_s", "pgqueuer_tuned_per_s", "pgqueuer_tuned_pair_per_s"),
    ),
    "backlog_vs_pgqueuer_pair": ("backlog_per_s", ("pgqueuer_tuned_pair_per_s",)),
    "backlog_vs_graphile": ("backlog_per_s", ("graphile_default_per_s", "graphile_tuned_per_s")),
    "backlog_vs_oban": ("backlog_per_s", ("oban_default_per_s", "oban_tuned_per_s")),
    "backlog_vs_dramatiq": ("backlog_per_s", ("dramatiq_default_per_s", "dramatiq_tuned_per_s")),
    "single_vs_celery": ("single_per_s", ("celery_default_per_s", "celery_tuned_per_s")),
}

#: The figures that the bar is about; they are in every report, null when they were not measured.
HEADLINES = (
    "post_vs_insert_only",
    "post_vs_forerunner",
    "bulk_submit_per_s",
    "backlog_per_s",
    "backlog_vs_pgqueuer",
    "backlog_vs_pgqueuer_pair",
    "backlog_vs_graphile",
    "backlog_vs_oban",
    "backlog_vs_dramatiq",
    "single_vs_celery",
    "idle_start_ms_p50",
    "idle_start_ms_p99",
    "memory_mib",
)


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of some rounds, with the smallest and the largest."""

    median: float
    low: float
    high: float


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of all do not exceed (nearest rank).

    Args:
        share: above 0, at most 1.

    Raises:
        ValueError: there are no values, or the share is out of bounds.
    """
    if not values:
        raise ValueError("no values to take a percentile of")
    if not 0 < share <= 1:
        raise ValueError(f"a percentile's share is above 0 and at most 1; given: {share}")
    return sorted(values)[math.ceil(share * len(values)) - 1]


def spread(values: Sequence[float]) -> Spread:
    """Median, smallest and largest.

    Raises:
        ValueError: there are no values.
    """
    if not values:
        raise ValueError("no values to summarise")
    return Spread(float(median(values)), min(values), max(values))


def ratio(ours: float | None, theirs: float | None) -> float | None:
    """How many times theirs is ours; None when one was not measured, or theirs is zero."""
    return ours / theirs if ours is not None and theirs else None


def with_ratios(measured: Mapping[str, float]) -> Round:
    """A round with the ratios that its figures allow."""
    complete = dict(measured)
    for name, (ours, others) in RATIOS.items():
        best = max((measured[key] for key in others if key in measured), default=None)
        found = ratio(measured.get(ours), best)
        if found is not None:
            complete[name] = found
    return complete


def spreads(rounds: Sequence[Mapping[str, float]]) -> dict[str, Spread]:
    """Every figure over the rounds that measured it, in the order in which they were first measured."""
    keys = dict.fromkeys(key for measured in rounds for key in measured)
    return {key: spread([one[key] for one in rounds if key in one]) for key in keys}


def flat(rounds: Sequence[Mapping[str, float]]) -> dict[str, float | None]:
    """Every figure's median under its key, with `KEY_min` and `KEY_max` when there were several rounds.

    The headlines come first and are null when they were not measured.
    """
    found: dict[str, float | None] = dict.fromkeys(HEADLINES)
    for key, value in spreads(rounds).items():
        found[key] = rounded(value.median)
        if len(rounds) > 1:
            found[f"{key}_min"] = rounded(value.low)
            found[f"{key}_max"] = rounded(value.high)
    return found


def rounded(value: float, digits: int = 4) -> float:
    """A figure with as many significant digits as measurements deserve."""
    if value == 0 or not math.isfinite(value):
        return value
    return round(value, max(0, digits - 1 - math.floor(math.log10(abs(value)))))


def milliseconds(seconds: Sequence[float], name: str) -> Round:
    """The p50 and p99 of some durations in milliseconds, as `NAME_ms_p50` and `NAME_ms_p99`."""
    return {f"{name}_ms_p{share}": 1000 * percentile(seconds, share / 100) for share in (50, 99)}
