"""What samples are made of: growth of counters, folding, and what a histogram knows."""

from __future__ import annotations

import pytest
from prometheus_client import Counter, Histogram
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily

from webapp.infra.broker.heartbeats import Worker
from webapp.infra.telemetry.metrics import RUN_BUCKETS
from webapp.system import figures
from webapp.system.figures import MOST_PAIRS, OTHERS, added, figures_of, grown, within
from webapp.system.overview import working_of


def test_figures_are_those_of_the_counters_and_histograms():
    recovered = CounterMetricFamily("jobs_recovered", "x", labels=["reason"])
    recovered.add_metric(["child_died"], 1)
    recovered.add_metric(["worker_died"], 2)
    runs = HistogramMetricFamily("job_duration_seconds", "x", labels=["task", "queue"])
    upto = [2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3, 4]
    ends = [*map(str, RUN_BUCKETS), "+Inf"]
    runs.add_metric(["noop", "default"], list(zip(ends, upto, strict=True)), 1.0)
    families = [CounterMetricFamily("jobs_created", "x", 3), CounterMetricFamily("other", "x", 9)]
    found = figures_of([*families, recovered, runs])
    buckets = found.pop("runs")
    assert found == {"created": 3, "recovered": 3}
    assert buckets == {"noop default": [2, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1]}


@pytest.mark.parametrize(
    ("before", "now", "growth"),
    [
        ({}, {}, {}),
        ({"created": 2}, {"created": 2}, {}),
        ({}, {"created": 2.0}, {"created": 2}),
        # Its files were deleted.
        ({"created": 9}, {"created": 2}, {"created": 2}),
        ({"created": 9}, {}, {}),
        ({"runs": {"a q": [1, 2]}}, {"runs": {"a q": [1, 5], "b q": [0, 0]}}, {"runs": {"a q": [0, 3]}}),
        ({"runs": {"a q": [9, 9]}}, {"runs": {"a q": [1, 0]}}, {"runs": {"a q": [1, 0]}}),
        # A release with other buckets.
        ({"runs": {"a q": [1]}}, {"runs": {"a q": [2, 3]}}, {"runs": {"a q": [2, 3]}}),
    ],
)
def test_growth_is_what_came_since(before, now, growth):
    assert grown(before, now) == growth


def test_of_very_many_tasks_those_have_figures_of_their_own_that_did_most():
    now = {"runs": {f"t{number} q": [number, 1] for number in range(1, MOST_PAIRS + 11)}}
    found = grown({}, now)["runs"]
    assert len(found) == MOST_PAIRS
    assert found[f"t{MOST_PAIRS + 10} q"] == [MOST_PAIRS + 10, 1]
    assert found[OTHERS] == [sum(range(1, 12)), 11]
    assert sum(map(sum, found.values())) == sum(map(sum, now["runs"].values()))


def test_samples_add_up_in_any_order():
    one = {"created": 1, "runs": {"a q": [1, 0]}}
    other = {"failed": 2, "runs": {"a q": [0, 4], "b q": [7, 7]}, "waits": {"a q": [1, 1]}}
    together = {
        "created": 1,
        "failed": 2,
        "runs": {"a q": [1, 4], "b q": [7, 7]},
        "waits": {"a q": [1, 1]},
    }
    assert added(one, other) == added(other, one) == together
    assert one == {"created": 1, "runs": {"a q": [1, 0]}}


@pytest.mark.parametrize(
    ("counts", "share", "found"),
    [
        ((0, 0, 0), 0.5, None),
        ((1, 0, 0), 0.5, (0.0, 0.1)),
        ((1, 1, 0), 0.5, (0.0, 0.1)),
        ((1, 2, 0), 0.5, (0.1, 1.0)),
        ((99, 0, 1), 0.99, (0.0, 0.1)),
        ((98, 0, 2), 0.99, (1.0, None)),
    ],
)
def test_a_share_ends_in_a_bucket(counts, share, found):
    assert within((0.1, 1.0), counts, share) == found


def test_every_series_is_of_a_counter_that_there_is():
    from webapp.infra.telemetry import metrics  # noqa: PLC0415 - it opens files

    names = {one._name for one in vars(metrics).values() if isinstance(one, Counter | Histogram)}
    assert {*figures.COUNTERS.values(), *(name for name, _ in figures.HISTOGRAMS.values())} <= names


def test_who_works_is_told_from_who_sweeps():
    def worker(name, queues, children, busy):
        return Worker(name, name, queues, children, 0, busy, 0.0)

    found = working_of(
        [
            worker("a", ("default", "mail"), 4, 3),
            worker("m", ("maintenance",), 2, 1),
            worker("all", ("default", "maintenance"), 1, 1),
            worker("old", (), 0, 0),
        ],
        1.5,
    )
    assert (found.workers, found.children, found.busy, found.maintenance) == (2, 5, 4, 2)
    assert found.listening == {"default": 2, "mail": 1, "maintenance": 2}
