"""What the fault suite counts of limits: how many there were at once, how many began in a stretch, and which limit held."""

from __future__ import annotations

import random
from contextlib import nullcontext

import pytest

from ops.chaos import spans
from ops.chaos.limit_changes import LimitChanges
from ops.chaos.order_faults import Run, overtaken
from ops.chaos.spans import Excess, Span
from ops.chaos.stage import Broken, Stage


def span(began, ended, holder="a", key=""):
    return Span(began, ended, holder, key)


def test_one_process_counts_once_whatever_it_holds():
    chunk = [span(0, 5), span(0, 6), span(0, 7), span(1, 2, "b")]
    assert [found for _, found in spans.crowds(chunk)] == [1, 1, 1, 2]


def test_where_one_ends_another_may_begin():
    assert [found for _, found in spans.crowds([span(0, 1), span(1, 2, "b")])] == [1, 1]


def test_one_that_was_killed_counts_until_its_row_was_settled():
    killed, later = span(0, float("inf")), span(3, 4, "b")
    assert spans.excesses([killed, later], lambda _: 1) == [Excess(3, 2, 1)]
    assert spans.excesses([killed, later], lambda _: None) == []


@pytest.mark.parametrize(
    ("before", "later", "is_wrong"),
    [
        (("a", 0, 2), ("a", 2, 3), False),
        (("a", 0, 2), ("a", 1, 3), True),
        (("a", 0, 2), ("b", 1, 3), False),
        # One that was never claimed is cancelled, or still waits; one that is not final holds all others back.
        (("a", None, 2), ("a", 1, 3), True),
        (("a", None, 1), ("a", 1, 3), False),
        (("a", 0, None), ("a", 1, 3), True),
        (("a", 0, 2), ("a", None, 1), False),
    ],
)
def test_a_job_is_out_of_order_that_began_before_the_one_before_it_was_final(before, later, is_wrong):
    runs = [Run(key, name, began, ended) for name, (key, began, ended) in (("1", before), ("2", later))]
    assert list(overtaken(runs)) == ([tuple(runs)] if is_wrong else [])


def test_the_most_in_a_stretch_is_what_counting_by_hand_gives():
    rng = random.Random(1)
    moments = sorted(rng.uniform(0, 10) for _ in range(200))
    by_hand = max(sum(1 for one in moments if end - 1 < one <= end) for end in moments)
    assert spans.most_in_a_window(moments, 1.0) == by_hand


def test_work_is_counted_within_a_stretch():
    assert spans.busy([span(0, 2), span(1, 9, "b"), span(8, 9)], 1.0, 4.0) == 4.0


@pytest.fixture
def changes(monkeypatch):
    """Changes that were sent and answered at these moments, and one that was not answered."""
    stage = Stage(system=_NoSystem(), history=None, prefix="x", rng=random.Random(1), say=print)
    changes = LimitChanges(stage)
    for concurrency, sent, answered in ((3, 10.0, 11.0), (1, 20.0, 21.0), (5, 30.0, None)):
        moments = iter([sent, *[answered] * 9])
        monkeypatch.setattr("ops.chaos.limit_changes.time.time", lambda moments=moments: next(moments))
        answer = _Answer() if answered is not None else _Refusal()
        monkeypatch.setattr("ops.chaos.limit_changes.requests.request", lambda *_, one=answer, **__: one)
        monkeypatch.setattr("ops.chaos.limit_changes.PATIENCE", 0.01)
        with nullcontext() if answered else pytest.raises(Broken):
            changes.put({"concurrency": concurrency})
    return changes


class _NoSystem:
    url = "http://nowhere"


class _Answer:
    ok = True


class _Refusal:
    ok = False


@pytest.mark.parametrize(
    ("since", "until", "most"),
    [
        (9.0, 12.0, None),
        (12.0, 13.0, 3),
        (20.5, 20.5, 3),
        (20.9, 22.0, 3),
        (21.5, 22.0, 1),
        (31.0, 31.0, 5),
    ],
)
def test_the_greatest_limit_that_may_have_been_in_force_counts(changes, since, until, most):
    assert changes.greatest(since, until) == most
