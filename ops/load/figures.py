"""What the system itself says of a run: its counters before and after, read from `/metrics`."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import requests
from prometheus_client.parser import text_string_to_metric_families

#: How long one look may take, seconds.
LOOK_TIMEOUT = 5.0


class NoAnswer(Exception):
    """The system does not answer, or with something else than metrics."""


@dataclass(frozen=True, slots=True)
class Figures:
    """One look at the counters; all labels are summed.

    Args:
        unfinished: jobs that wait or run now.
        wait: `job_wait_seconds` as {upper bound in seconds: jobs up to it}.
    """

    created: float
    completed: float
    failed: float
    retried: float
    unfinished: float
    wait: Mapping[float, float]

    @classmethod
    def parse(cls, exposition: str) -> Figures:
        """Reads Prometheus' text format; a metric that is not there yet is 0."""
        sums: dict[str, float] = defaultdict(float)
        wait: dict[float, float] = defaultdict(float)
        for family in text_string_to_metric_families(exposition):
            for sample in family.samples:
                if sample.name == "job_wait_seconds_bucket":
                    wait[float(sample.labels["le"])] += sample.value
                else:
                    sums[sample.name] += sample.value
        return cls(
            created=sums["jobs_created_total"],
            completed=sums["jobs_completed_total"],
            failed=sums["jobs_failed_total"],
            retried=sums["jobs_retried_total"],
            unfinished=sums["job_queue_depth"],
            wait=dict(sorted(wait.items())),
        )


def look(url: str) -> Figures:
    """Reads the counters of a running system.

    Raises:
        NoAnswer: there is none to read; the message says why.
    """
    try:
        answer = requests.get(f"{url}/metrics", timeout=LOOK_TIMEOUT)
        answer.raise_for_status()
        return Figures.parse(answer.text)
    except (requests.RequestException, ValueError) as error:
        raise NoAnswer(f"{url}/metrics could not be read ({type(error).__name__})") from error


def quantile(before: Mapping[float, float], after: Mapping[float, float], share: float) -> float | None:
    """The upper bound of the bucket that holds this share of what came between two looks; None: nothing came.

    Example:
        >>> quantile({0.1: 5, 1.0: 5}, {0.1: 104, 1.0: 105}, 0.99)
        0.1
    """
    came = {bound: count - before.get(bound, 0) for bound, count in sorted(after.items())}
    total = max(came.values(), default=0)
    if total <= 0:
        return None
    return next((bound for bound, count in came.items() if count >= share * total), math.inf)
