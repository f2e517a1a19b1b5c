"""Figures of samples: what is taken from the counters of a host, by how much it grew, and what histograms say. Pure.

Figures have a form that JSON keeps: a number for each counter, and for each histogram the growth of its buckets, the last of which has no
end. What did not grow is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from prometheus_client.metrics_core import Metric

from webapp.infra.telemetry.metrics import RUN_BUCKETS, WAIT_BUCKETS

#: Series of one number, by the counter that they are of.
COUNTERS = {
    "created": "jobs_created",
    "completed": "jobs_completed",
    "failed": "jobs_failed",
    "cancelled": "jobs_cancelled",
    "expired": "jobs_expired",
    "retried": "jobs_retried",
    "requeued": "jobs_requeued",
    "recovered": "jobs_recovered",
    "late": "job_starts_late",
}
#: Series with a distribution, by the histogram that they are of, with the ends of its buckets, seconds.
HISTOGRAMS: Mapping[str, tuple[str, tuple[float, ...]]] = {
    "runs": ("job_duration_seconds", RUN_BUCKETS),
    "waits": ("job_wait_seconds", WAIT_BUCKETS),
}
#: Most pairs of task and queue in a sample that have figures of their own; those that grew most.
MOST_PAIRS = 50
#: What the others are added up under.
OTHERS = "other other"

#: Numbers by the name of their series, and buckets by series and by task and queue.
Figures = dict[str, Any]


def figures_of(families: Iterable[Metric]) -> Figures:
    """What counters have counted since they were made, added up over what a series does not tell apart."""
    found: Figures = {}
    counters = {metric: series for series, metric in COUNTERS.items()}
    histograms = {metric: series for series, (metric, _) in HISTOGRAMS.items()}
    for family in families:
        if series := counters.get(family.name):
            found[series] = sum(one.value for one in family.samples if one.name.endswith("_total"))
        elif series := histograms.get(family.name):
            found[series] = _buckets_of(family, HISTOGRAMS[series][1])
    return found


def _buckets_of(family: Metric, ends: tuple[float, ...]) -> dict[str, list[float]]:
    """How many values each bucket has, by task and queue; Prometheus' have those of the buckets before as well."""
    whole: dict[str, dict[float, float]] = {}
    for one in family.samples:
        if one.name.endswith("_bucket"):
            pair = f"{one.labels['task']} {one.labels['queue']}"
            whole.setdefault(pair, {})[float(one.labels["le"])] = one.value
    found = {}
    for pair, upto in whole.items():
        counts = [upto.get(end, 0.0) for end in (*ends, float("inf"))]
        found[pair] = [one - before for one, before in zip(counts, [0.0, *counts], strict=False)]
    return found


def grown(before: Figures, now: Figures) -> Figures:
    """By how much figures grew; counters that are smaller than before began anew.

    Example:
        >>> grown({"created": 5, "failed": 1}, {"created": 7, "failed": 1})
        {'created': 2}
        >>> grown({"created": 5}, {"created": 3})
        {'created': 3}
    """
    found: Figures = {}
    for series, value in now.items():
        if isinstance(value, dict):
            if pairs := _most(_grown_pairs(before.get(series) or {}, value)):
                found[series] = pairs
        elif more := value - _base(before.get(series, 0), value):
            found[series] = _whole(more)
    return found


def _grown_pairs(before: Figures, now: Figures) -> dict[str, list[float]]:
    found = {}
    for pair, counts in now.items():
        old = before.get(pair) or []
        is_anew = len(old) != len(counts) or sum(old) > sum(counts)
        more = [_whole(max(0, one - (0 if is_anew else old[at]))) for at, one in enumerate(counts)]
        if any(more):
            found[pair] = more
    return found


def _base(before: float, now: float) -> float:
    return before if before <= now else 0


def _whole(value: float) -> float:
    return int(value) if float(value).is_integer() else value


def _most(pairs: dict[str, list[float]]) -> dict[str, list[float]]:
    """Those that grew most; the others are added up."""
    if len(pairs) <= MOST_PAIRS:
        return pairs
    ranked = sorted(pairs, key=lambda pair: (-sum(pairs[pair]), pair))
    kept = {pair: pairs[pair] for pair in ranked[: MOST_PAIRS - 1] if pair != OTHERS}
    rest = [pairs[pair] for pair in ranked if pair not in kept]
    return kept | {OTHERS: [_whole(sum(column)) for column in zip(*rest, strict=True)]}


def added(one: Figures, other: Figures) -> Figures:
    """Two samples together.

    Example:
        >>> added({"created": 2, "runs": {"noop default": [1, 0]}}, {"created": 1, "runs": {"noop default": [0, 3]}})
        {'created': 3, 'runs': {'noop default': [1, 3]}}
    """
    found = dict(one)
    for series, value in other.items():
        if isinstance(value, dict):
            pairs = dict(found.get(series) or {})
            for pair, counts in value.items():
                old = pairs.get(pair) or [0] * len(counts)
                pairs[pair] = [a + b for a, b in zip(old, counts, strict=True)]
            found[series] = _most(pairs)
        else:
            found[series] = found.get(series, 0) + value
    return found


def within(ends: Sequence[float], counts: Sequence[float], share: float) -> tuple[float, float | None] | None:
    """Between which seconds a share of all values ends: a histogram knows no more. None for its end: longer than all that it tells apart.

    Args:
        ends: of the buckets, seconds.
        counts: values in each bucket; the last has no end.
        share: 0.5 for the median.

    Returns:
        None where there are no values.

    Example:
        >>> within((0.1, 0.25, 1.0), (90, 6, 3, 1), 0.95), within((0.1,), (0, 0), 0.5)
        ((0.1, 0.25), None)
    """
    total = sum(counts)
    if not total:
        return None
    reached = 0.0
    for low, high, count in zip((0.0, *ends), (*ends, None), counts, strict=True):
        reached += count
        if reached >= total * share:
            return low, high
    return ends[-1], None
