"""The arithmetic of the benchmark."""

from __future__ import annotations

import re

import pytest

from ops.bench import against
from ops.bench.figures import (
    HEADLINES,
    RATIOS,
    Spread,
    flat,
    milliseconds,
    percentile,
    ratio,
    rounded,
    spread,
    spreads,
    with_ratios,
)


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [
        ([5.0], 0.5, 5.0),
        ([3.0, 1.0, 2.0], 0.5, 2.0),
        ([4.0, 1.0, 3.0, 2.0], 0.5, 2.0),
        (list(range(1, 101)), 0.99, 99),
        (list(range(1, 101)), 1.0, 100),
        (list(range(1, 201)), 0.99, 198),
    ],
)
def test_a_percentile_is_a_value_that_was_measured(values, share, expected):
    assert percentile(values, share) == expected


@pytest.mark.parametrize(("values", "share"), [([], 0.5), ([1.0], 0.0), ([1.0], 1.1)])
def test_a_percentile_of_nothing_or_out_of_bounds_is_refused(values, share):
    with pytest.raises(ValueError, match="percentile"):
        percentile(values, share)


def test_a_spread_has_median_smallest_and_largest():
    found = spread([30.0, 10.0, 20.0])

    assert (found.median, found.low, found.high) == (20.0, 10.0, 30.0)


def test_a_spread_of_nothing_is_refused():
    with pytest.raises(ValueError, match="no values"):
        spread([])


def test_a_ratio_needs_both_figures():
    assert ratio(6.0, 3.0) == 2.0
    assert ratio(None, 3.0) is None
    assert ratio(6.0, None) is None
    assert ratio(6.0, 0.0) is None


def test_ratios_are_against_the_better_way_to_run_a_peer():
    measured = {"backlog_per_s": 30.0, "pgqueuer_default_per_s": 5.0, "pgqueuer_tuned_per_s": 15.0}

    assert with_ratios(measured)["backlog_vs_pgqueuer"] == 2.0


def test_a_ratio_whose_figures_are_missing_is_left_out():
    assert set(with_ratios({"post_16_per_s": 1.0})) == {"post_16_per_s"}


def test_figures_are_summed_up_over_the_rounds_that_measured_them():
    found = spreads([{"a": 1.0}, {"a": 3.0, "b": 7.0}, {"a": 2.0}])

    assert list(found) == ["a", "b"]
    assert (found["a"].median, found["b"].median) == (2.0, 7.0)


def test_headlines_are_in_every_report_and_null_when_not_measured():
    found = flat([{"memory_mib": 123.456}])

    assert set(found) == set(HEADLINES)
    assert found["memory_mib"] == 123.5
    assert all(value is None for key, value in found.items() if key != "memory_mib")


def test_several_rounds_show_their_spread():
    found = flat([{"x": 1.0}, {"x": 2.0}, {"x": 6.0}])

    assert (found["x"], found["x_min"], found["x_max"]) == (2.0, 1.0, 6.0)


def test_every_ratio_is_a_headline():
    assert set(RATIOS) <= set(HEADLINES)


@pytest.mark.parametrize(
    ("value", "expected"), [(0.0, 0.0), (0.0123456, 0.01235), (1.23456, 1.235), (12345.678, 12346.0)]
)
def test_figures_keep_four_significant_digits_and_all_before_the_point(value, expected):
    assert rounded(value) == expected


def test_durations_become_milliseconds():
    assert milliseconds([0.001, 0.002, 0.003], "wait") == {"wait_ms_p50": 2.0, "wait_ms_p99": 3.0}


BEFORE = [
    {"backlog_per_s": 100.0, "idle_ms_p50": 5.0, "gone": 1.0},
    {"backlog_per_s": 200.0, "idle_ms_p50": 4.0, "gone": 1.0},
]
NOW = [
    {"backlog_per_s": 110.0, "idle_ms_p50": 5.0, "new": 1.0},
    {"backlog_per_s": 180.0, "idle_ms_p50": 2.0, "new": 1.0},
]


def test_a_change_is_judged_by_the_ratio_of_each_round():
    assert against.ratios(BEFORE, NOW) == {
        "backlog_per_s": Spread(1.0, 0.9, 1.1),
        "idle_ms_p50": Spread(0.75, 0.5, 1.0),
    }


def test_what_was_not_measured_in_every_round_is_left_out():
    assert against.ratios([{"a": 1.0}, {}], [{"a": 1.0}, {"a": 1.0}]) == {}


def test_the_table_shows_both_and_what_became_of_each():
    shown = against.table("0123456789abcdef", BEFORE, NOW)
    assert "0123456789ab " in shown
    assert re.search(r"backlog_per_s +150 +145   1\.00  \(0\.90 \.\. 1\.10\)", shown)
