"""What follows from how the steps of a workflow stand: begun, left out with a reason, taken back, undone."""

from __future__ import annotations

import random

import pytest

from webapp.workflows.decisions import Situation, decide
from webapp.workflows.graphs import placed
from webapp.workflows.model import OnFailure, Status, StepSpec, StepStatus, When

R, C, F, X = StepStatus.RUNNING, StepStatus.COMPLETED, StepStatus.FAILED, StepStatus.CANCELLED


def step(*after, when="completed", on_failure="fail", undo=False):
    compensate = StepSpec() if undo else None
    return StepSpec(after=after, when=When(when), on_failure=OnFailure(on_failure), compensate=compensate)


def told(steps, begun, **more):
    """What follows, by names: what begins, and how the others stand."""
    nodes = [one.node for one in placed(steps)]
    number = {node.name: node.number for node in nodes}
    begun = {number[name]: status for name, status in begun.items()}
    if "asked" in more:
        more["asked"] = frozenset(number[name] for name in more["asked"])
    decision = decide(Situation(nodes, begun, **more))
    name = {node.number: node.name for node in nodes}
    begins = " ".join(name[one] for one in decision.begins)
    out = {name[one]: str(why) for one, (status, why) in decision.stands.items() if why is not None}
    return decision.status.value, begins, out, [name[one] for one in decision.stops]


LINE = {"a": step(), "b": step("a"), "c": step("b")}
FAN = {"a": step(), "b": step("a"), "c": step("a"), "d": step("b", "c")}
WITH_END = {
    "a": step(),
    "b": step("a"),
    "alarm": step("a", "b", when="any_failed"),
    "tidy": step("b", when="final"),
}


def with_policy(policy):
    return {"a": step(on_failure=policy), "b": step("a"), "c": step("b"), "x": step(), "y": step("x")}


@pytest.mark.parametrize(
    ("steps", "begun", "status", "begins", "out"),
    [
        (LINE, {}, "running", "a", {}),
        (LINE, {"a": R}, "running", "", {}),
        (LINE, {"a": C}, "running", "b", {}),
        (LINE, {"a": C, "b": C, "c": C}, "completed", "", {}),
        (LINE, {"a": F}, "failed", "", {"b": "before_failed", "c": "before_skipped"}),
        (LINE, {"a": X}, "failed", "", {"b": "before_cancelled", "c": "before_skipped"}),
        (LINE, {"a": R, "b": F}, "running", "", {"c": "before_failed"}),
        (FAN, {"a": C}, "running", "b c", {}),
        (FAN, {"a": C, "b": C, "c": R}, "running", "", {}),
        (FAN, {"a": C, "b": C, "c": C}, "running", "d", {}),
        (FAN, {"a": C, "b": F, "c": R}, "running", "", {"d": "before_failed"}),
        # What waits for another branch does not begin any more either, and says why.
        (with_policy("fail"), {"a": F, "x": C}, "failed", "", {"b": "before_failed", "c": "before_skipped", "y": "workflow_failed"}),
        (with_policy("skip"), {"a": F, "x": C}, "running", "y", {"b": "before_failed", "c": "before_skipped"}),
        (with_policy("skip"), {"a": F, "x": C, "y": C}, "failed", "", {"b": "before_failed", "c": "before_skipped"}),
        (with_policy("continue"), {"a": F, "x": C}, "running", "b y", {}),
        (with_policy("continue"), {"a": F, "x": C, "y": C, "b": C, "c": C}, "completed", "", {}),
        # Those that run in any case, and those that run after a failure.
        (WITH_END, {"a": C, "b": C}, "running", "tidy", {"alarm": "none_failed"}),
        (WITH_END, {"a": C, "b": C, "tidy": C}, "completed", "", {"alarm": "none_failed"}),
        (WITH_END, {"a": C, "b": F}, "running", "alarm tidy", {}),
        # What tidies up does not begin while something runs that comes before what was left out.
        (WITH_END | {"x": step(), "y": step("a", "x"), "z": step("y", when="final")}, {"a": F, "x": R, "alarm": C, "tidy": C}, "running", "",
         {"b": "before_failed", "y": "before_failed"}),
        (WITH_END, {"a": F}, "running", "alarm tidy", {"b": "before_failed"}),
        (WITH_END, {"a": F, "alarm": C, "tidy": C}, "failed", "", {"b": "before_failed"}),
        ({"a": step(), "m": step("a", when="any_failed"), "n": step("m")}, {"a": C}, "completed", "", {"m": "none_failed", "n": "before_skipped"}),
        # Left out because nothing failed is no failure.
        (
            {"a": step(), "m": step("a", when="any_failed"), "n": step("m", when="any_failed")},
            {"a": C}, "completed", "", {"m": "none_failed", "n": "none_failed"},
        ),
    ],
)  # fmt: skip
def test_what_follows(steps, begun, status, begins, out):
    assert told(steps, begun)[:3] == (status, begins, out)


def test_a_failure_is_taken_back_when_its_step_is_queued_again():
    assert told(LINE, {"a": C, "b": F})[2] == {"c": "before_failed"}
    assert told(LINE, {"a": C, "b": R})[:3] == ("running", "", {})
    assert told(LINE, {"a": C, "b": C})[:2] == ("running", "c")


def test_fail_fast_asks_what_runs_to_stop_and_nothing_else():
    steps = FAN | {"tidy": step("a", when="final")}
    begun = {"a": C, "b": F, "c": R, "tidy": R}
    assert told(steps, begun)[3] == []
    assert told(steps, begun, fail_fast=True)[3] == ["c"]
    assert told(steps, begun, fail_fast=True, asked=["c"])[3] == []


def test_a_cancelled_workflow_begins_what_runs_at_the_end_and_nothing_else():
    begun = {"a": C, "b": R}
    assert told(WITH_END | {"z": step()}, begun, is_cancelled=True) == (
        "cancelling",
        "",
        {"z": "workflow_cancelled"},
        ["b"],
    )
    assert told(WITH_END, {"a": C, "b": X}, is_cancelled=True)[:2] == ("cancelling", "alarm tidy")
    assert told(WITH_END, {"a": C, "b": X, "alarm": C, "tidy": C}, is_cancelled=True)[0] == "cancelled"
    assert told(LINE, {}, is_cancelled=True)[0] == "cancelled"


UNDONE = {"book": step(undo=True), "pack": step("book"), "pay": step("pack", undo=True), "send": step("pay")}


@pytest.mark.parametrize(
    ("begun", "status", "begins"),
    [
        ({"book": C, "pack": C, "pay": C, "send": C}, "completed", ""),
        ({"book": C, "pack": C, "pay": C, "send": R}, "running", ""),
        ({"book": C, "pack": C, "pay": C, "send": F}, "compensating", "pay:compensate"),
        ({"book": C, "pack": C, "pay": C, "send": F, "pay:compensate": R}, "compensating", ""),
        ({"book": C, "pack": C, "pay": C, "send": F, "pay:compensate": C}, "compensating", "book:compensate"),
        # What cannot be undone does not keep the rest from being undone.
        ({"book": C, "pack": C, "pay": C, "send": F, "pay:compensate": F}, "compensating", "book:compensate"),
        ({"book": C, "pack": C, "pay": C, "send": F, "pay:compensate": C, "book:compensate": C}, "failed", ""),
        ({"book": C, "pack": C, "pay": F}, "compensating", "book:compensate"),
        ({"book": F}, "failed", ""),
        # A step that is queued again by hand while its workflow is undone has nothing begin behind it.
        ({"book": C, "pack": C, "pay": C, "send": R, "pay:compensate": C}, "compensating", ""),
    ],
)  # fmt: skip
def test_what_was_done_is_undone_in_the_reverse_order(begun, status, begins):
    assert told(UNDONE, begun)[:2] == (status, begins)


def test_a_cancelled_workflow_is_undone():
    assert told(UNDONE, {"book": C, "pack": X}, is_cancelled=True)[:2] == ("compensating", "book:compensate")


@pytest.mark.parametrize("seed", range(40))
def test_no_step_waits_for_what_cannot_come(seed):
    """Whatever a workflow is like and whatever its jobs come to, it ends; and each step began once, or says why it did not."""
    chance = random.Random(seed)
    names = [f"s{number}" for number in range(25)]
    steps = {
        name: step(
            *chance.sample(names[:place], k=min(place, chance.randrange(4))),
            when=chance.choice(["completed", "completed", "completed", "final"]),
            on_failure=chance.choice(["fail", "continue", "skip"]),
            undo=chance.random() < 0.3,
        )
        for place, name in enumerate(names)
    }
    nodes = [one.node for one in placed(steps)]
    begun, cancelled = {}, False
    for _ in range(10 * len(nodes)):
        decision = decide(Situation(nodes, begun, is_cancelled=cancelled, fail_fast=seed % 2 == 0))
        if decision.status.is_final:
            break
        assert not set(decision.begins) & set(begun)
        begun |= dict.fromkeys(decision.begins, R)
        running = [number for number, status in begun.items() if status is R]
        assert running
        begun[chance.choice(running)] = chance.choice([C, C, C, C, F, X])
        cancelled = cancelled or chance.random() < 0.01
    assert decision.status in {Status.COMPLETED, Status.FAILED, Status.CANCELLED}
    assert sum(decision.totals[1:]) == decision.totals.total == len(names)
