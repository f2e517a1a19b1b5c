from __future__ import annotations

import argparse
import math

import pytest

from ops.load.figures import Figures, quantile
from ops.load.profiles import duration, rate

EXPOSITION = """\
# TYPE jobs_completed_total counter
jobs_completed_total{task="noop"} 3.0
jobs_completed_total{task="sleep"} 2.0
# TYPE job_queue_depth gauge
job_queue_depth{queue="default",status="queued"} 4.0
job_queue_depth{queue="mail",status="processing"} 1.0
# TYPE job_wait_seconds histogram
job_wait_seconds_bucket{task="noop",le="1.0"} 4.0
job_wait_seconds_bucket{task="sleep",le="1.0"} 1.0
job_wait_seconds_bucket{task="noop",le="+Inf"} 5.0
job_wait_seconds_count{task="noop"} 5.0
job_wait_seconds_sum{task="noop"} 2.0
"""


def test_labels_are_summed_and_what_is_not_there_is_zero():
    found = Figures.parse(EXPOSITION)
    assert (found.created, found.completed, found.unfinished) == (0, 5, 5)
    assert found.wait == {1.0: 5.0, math.inf: 5.0}


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        ({}, {}, None),
        ({0.1: 5, math.inf: 5}, {0.1: 5, math.inf: 5}, None),
        ({0.1: 5, math.inf: 5}, {0.1: 104, math.inf: 105}, 0.1),
        ({}, {0.1: 98, math.inf: 100}, math.inf),
    ],
)
def test_a_quantile_counts_only_what_came_meanwhile(before, after, found):
    assert quantile(before, after, 0.99) == found


@pytest.mark.parametrize(("given", "seconds"), [("90", 90), ("90s", 90), ("15m", 900), ("0.5h", 1_800)])
def test_a_duration_is_read_with_its_unit(given, seconds):
    assert duration(given) == seconds


@pytest.mark.parametrize("given", ["", "soon", "1", "-5s", "9d", "1000h"])
def test_a_duration_that_is_none_names_what_was_given(given):
    with pytest.raises(argparse.ArgumentTypeError, match="given: "):
        duration(given)


def test_a_rate_is_a_whole_number_in_bounds():
    assert rate("50") == 50
    for given in ("0", "1.5", "10001", "many"):
        with pytest.raises(argparse.ArgumentTypeError, match="given: "):
            rate(given)
