"""What a workflow may be: its graph, pointers into results, and payloads with inputs."""

from __future__ import annotations

from functools import reduce

import pytest

from webapp.workflows.errors import WorkflowRefused
from webapp.workflows.graphs import placed
from webapp.workflows.inputs import Given, Unfit, fitting, with_inputs
from webapp.workflows.model import Source, StepSpec, StepStatus, When
from webapp.workflows.pointers import LONGEST, NothingThere, part_of, parts_of

DONE = StepStatus.COMPLETED


def refused(steps):
    with pytest.raises(WorkflowRefused) as caught:
        placed(steps)
    return caught.value.field, str(caught.value)


@pytest.mark.parametrize(
    ("steps", "field", "words"),
    [
        ({"a": StepSpec(after=("b",))}, "steps.a.after.0", "must be the name of a step"),
        ({"a": StepSpec(after=("a",))}, "steps.a.after.0", "must not be the step itself"),
        ({"a": StepSpec(), "b": StepSpec(after=("a", "a"))}, "steps.b.after.1", "must not name a step twice"),
        ({"a": StepSpec(when=When.ANY_FAILED)}, "steps.a.when", "must not be any_failed where after names no step"),
        ({"a": StepSpec(inputs={"x": Source("b")})}, "steps.a.inputs.x.step", "must be the name of a step"),
        (
            {"a": StepSpec(), "b": StepSpec(inputs={"x": Source("a")})},
            "steps.b.inputs.x.step", "must be a step that comes before this one",
        ),
        ({"a": StepSpec(inputs={"x": Source("a")})}, "steps.a.inputs.x.step", "must be a step that comes before this one"),
        ({"a": StepSpec(), "b": StepSpec(over=Source("a"))}, "steps.b.map.step", "must be a step that comes before this one"),
        (
            {"a": StepSpec(compensate=StepSpec(inputs={"x": Source("b")})), "b": StepSpec(after=("a",))},
            "steps.a.compensate.inputs.x.step", "must be a step that comes before this one",
        ),
        ({f"s{n}": StepSpec() for n in range(1_001)}, "steps", "must be at most 1000"),
        ({f"s{n}": StepSpec(compensate=StepSpec()) for n in range(501)}, "steps", "must be at most 1000"),
        (
            {f"s{n}": StepSpec(after=tuple(f"s{m}" for m in range(n))) for n in range(150)},
            "steps", "must wait for each other at most 10000 times",
        ),
    ],
)  # fmt: skip
def test_a_graph_that_breaks_a_rule_is_refused_by_its_field(steps, field, words):
    assert refused(steps)[0] == field
    assert words in refused(steps)[1]


def test_a_circle_is_named_with_its_path():
    steps = {
        "a": StepSpec(after=("c",)),
        "b": StepSpec(after=("a",)),
        "c": StepSpec(after=("b",)),
        "d": StepSpec(),
    }
    field, words = refused(steps)
    assert (field, "in a circle: a -> b -> c -> a;" in words) == ("steps.a.after", True)


def test_what_comes_before_through_others_gives_inputs():
    steps = {
        "a": StepSpec(),
        "b": StepSpec(after=("a",)),
        "c": StepSpec(after=("b",), inputs={"x": Source("a")}),
        "d": StepSpec(compensate=StepSpec(inputs={"own": Source("d")})),
    }
    assert [one.node.name for one in placed(steps)] == ["a", "d", "b", "c", "d:compensate"]


def test_what_undoes_waits_for_what_undoes_the_steps_behind_also_through_those_that_are_not_undone():
    undo = StepSpec()
    steps = {
        "a": StepSpec(compensate=undo),
        "b": StepSpec(after=("a",)),
        "c": StepSpec(after=("b",), compensate=undo),
        "d": StepSpec(after=("b",), compensate=undo),
        "e": StepSpec(after=("c",), compensate=undo),
    }
    nodes = [one.node for one in placed(steps)]
    name = {node.number: node.name for node in nodes}
    waits = {node.name: {name[one] for one in node.after} for node in nodes if node.undoes is not None}
    assert waits == {
        "e:compensate": set(),
        "d:compensate": set(),
        "c:compensate": {"e:compensate"},
        "a:compensate": {"c:compensate", "d:compensate"},
    }
    assert all(one < node.number for node in nodes for one in node.after)


@pytest.mark.parametrize(
    ("pointer", "part"),
    [
        ("", {"foo": ["bar", "baz"], "": 0, "a/b": 1, "m~n": 8, " ": 7, 'k"l': 6}),
        ("/foo", ["bar", "baz"]),
        ("/foo/0", "bar"),
        ("/", 0),
        ("/a~1b", 1),
        ("/m~0n", 8),
        ("/ ", 7),
        ('/k"l', 6),
    ],
)  # fmt: skip
def test_the_pointers_of_the_rfc(pointer, part):
    whole = {"foo": ["bar", "baz"], "": 0, "a/b": 1, "m~n": 8, " ": 7, 'k"l': 6}
    assert part_of(whole, pointer) == part


@pytest.mark.parametrize(
    "pointer", ["/foo/2", "/foo/-", "/foo/00", "/foo/bar", "/none", "/foo/0/x", "/foo/-1"]
)
def test_a_part_that_is_not_there(pointer):
    with pytest.raises(NothingThere):
        part_of({"foo": ["bar", "baz"]}, pointer)


@pytest.mark.parametrize("pointer", ["foo", "/a~2", "/a~", "#/foo", "/x" * (LONGEST // 2)])
def test_what_is_no_pointer(pointer):
    with pytest.raises(ValueError, match="must"):
        parts_of(pointer)


def test_a_step_that_did_not_complete_gives_null():
    given = {"a": Given(StepStatus.FAILED), "b": Given(DONE, [1, 2])}
    inputs = {"x": Source("a", "/deep/down"), "y": Source("b", "/1"), "z": Source("b")}
    assert with_inputs({"task": "t"}, inputs, given, 1_000) == {"task": "t", "x": None, "y": 2, "z": [1, 2]}


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (Given(DONE, {"other": 1}), "input_missing: input 'x': the result of step 'a' has nothing at '/rows'"),
        (Given(DONE, None), "input_missing: input 'x': the result of step 'a' has nothing at '/rows'"),
        (Given(DONE, None, "not JSON"), "result_not_kept: input 'x' is the result of step 'a', which was not kept: not JSON"),
        (Given(DONE, {"rows": "r" * 100}), "input_too_large: with its inputs the payload has 119 bytes, and may have 100 at most"),
    ],
)  # fmt: skip
def test_a_payload_that_cannot_be_put_together_says_why(given, why):
    with pytest.raises(Unfit) as caught:
        with_inputs({"task": "t"}, {"x": Source("a", "/rows")}, {"a": given}, 100)
    assert caught.value.reason == why


def test_a_payload_that_would_be_nested_too_deep():
    deep = []
    for _ in range(63):
        deep = [deep]
    with pytest.raises(Unfit, match="deeper than 64"):
        with_inputs({}, {"x": Source("a")}, {"a": Given(DONE, [deep])}, 10_000)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("x" * 30, "would be larger than it may be"),
        (reduce(lambda inner, _: [inner], range(64), 0), "nested deeper than 63 levels"),
    ],
)
def test_a_value_of_a_list_that_does_not_fit_is_named(value, words):
    assert fitting({"item": 1}, 1, 20) == {"item": 1}
    with pytest.raises(Unfit, match=words):
        fitting({"item": value}, value, 20)
