"""The graph of a workflow: which step waits for which, checked as a whole and put in an order. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter

from webapp.workflows.errors import WorkflowRefused
from webapp.workflows.model import MOST_EDGES, MOST_STEPS, UNDOES, Node, OnFailure, Source, StepSpec, When

#: Most names of a circle that are said.
SHOWN = 20


@dataclass(frozen=True, slots=True)
class Placed:
    """A step in its place.

    Args:
        node: as decisions see it.
        spec: what was asked for.
    """

    node: Node
    spec: StepSpec


def placed(steps: Mapping[str, StepSpec], under: str = "") -> list[Placed]:
    """The steps in an order in which each comes behind those that it waits for, and behind them those that undo steps.

    Of steps that could change places, the one that is given first comes first.

    Args:
        under: what fields are named by, where it is a workflow within another one.

    Raises:
        WorkflowRefused: a step waits for one that there is not, for itself or in a circle, takes something of one that does not come
            before it, or there are too many.

    Example:
        >>> both = placed({"load": StepSpec(after=("extract",)), "extract": StepSpec()})
        >>> [(one.node.number, one.node.name, one.node.after) for one in both]
        [(0, 'extract', ()), (1, 'load', (0,))]
    """
    _check_numbers(steps, under)
    for name, step in steps.items():
        _check_after(steps, name, step, under)
    order = _in_order(steps, under)
    number = {name: place for place, name in enumerate(order)}
    nodes = [_node(number, name, steps[name]) for name in order]
    _check_inputs(steps, nodes, under)
    undoing = _undoing(nodes, steps)
    edges = sum(len(node.after) for node in (*nodes, *undoing))
    if edges > MOST_EDGES:
        raise WorkflowRefused(
            f"{under}steps", f"must wait for each other at most {MOST_EDGES} times in all", edges
        )
    own = [Placed(node, steps[node.name]) for node in nodes]
    return own + [Placed(node, _that_undoes(steps, node)) for node in undoing]


def _check_numbers(steps: Mapping[str, StepSpec], under: str) -> None:
    count = len(steps) + sum(step.compensate is not None for step in steps.values())
    if count > MOST_STEPS:
        rule = f"must be at most {MOST_STEPS}, those that compensate others among them"
        raise WorkflowRefused(f"{under}steps", rule, count)


def _check_after(steps: Mapping[str, StepSpec], name: str, step: StepSpec, under: str) -> None:
    field = f"{under}steps.{name}.after"
    for place, other in enumerate(step.after):
        if other == name:
            raise WorkflowRefused(f"{field}.{place}", "must not be the step itself", other)
        if other not in steps:
            raise WorkflowRefused(f"{field}.{place}", "must be the name of a step of this workflow", other)
        if other in step.after[:place]:
            raise WorkflowRefused(f"{field}.{place}", "must not name a step twice", other)
    if step.when is When.ANY_FAILED and not step.after:
        raise WorkflowRefused(
            f"{under}steps.{name}.when", "must not be any_failed where after names no step", step.when.value
        )


def _in_order(steps: Mapping[str, StepSpec], under: str) -> list[str]:
    place = {name: number for number, name in enumerate(steps)}
    sorter = TopologicalSorter({name: step.after for name, step in steps.items()})
    try:
        sorter.prepare()
    except CycleError as error:
        circle = _from_the_first(error.args[1][1:], place)
        path = " -> ".join(circle[:SHOWN]) + (" -> ..." if len(circle) > SHOWN else f" -> {circle[0]}")
        rule = f"must not wait for each other in a circle: {path}"
        raise WorkflowRefused(f"{under}steps.{circle[0]}.after", rule, circle[-1]) from None
    order: list[str] = []
    while sorter.is_active():
        ready = sorted(sorter.get_ready(), key=place.__getitem__)
        order += ready
        sorter.done(*ready)
    return order


def _from_the_first(circle: list[str], place: Mapping[str, int]) -> list[str]:
    """A circle, told from the step on that is given first; each comes before the next one."""
    first = circle.index(min(circle, key=place.__getitem__))
    return circle[first:] + circle[:first]


def _node(number: Mapping[str, int], name: str, step: StepSpec) -> Node:
    after = tuple(sorted(number[other] for other in step.after))
    return Node(number[name], name, after, step.when, step.on_failure)


def _check_inputs(steps: Mapping[str, StepSpec], nodes: Iterable[Node], under: str) -> None:
    """Looks whether each step takes what those before it give. Who is before is kept as a number's bits."""
    before: list[int] = []
    number = {}
    for node in nodes:
        mask = 0
        for other in node.after:
            mask |= before[other] | 1 << other
        before.append(mask)
        number[node.name] = node.number
        step = steps[node.name]
        field = f"{under}steps.{node.name}"
        named = {f"{field}.inputs.{key}": source for key, source in step.inputs.items()}
        if step.over is not None:
            named[f"{field}.map"] = step.over
        _check_sources(steps, named, mask, number)
        if step.compensate is not None:
            own = mask | 1 << node.number
            inputs = step.compensate.inputs.items()
            named = {f"{field}.compensate.inputs.{key}": source for key, source in inputs}
            _check_sources(steps, named, own, number)


def _check_sources(
    steps: Mapping[str, StepSpec], named: Mapping[str, Source], before: int, number: Mapping[str, int]
) -> None:
    for field, source in named.items():
        if source.step not in steps:
            raise WorkflowRefused(f"{field}.step", "must be the name of a step of this workflow", source.step)
        place = number.get(source.step)
        if place is None or not before >> place & 1:
            rule = "must be a step that comes before this one, directly or through others"
            raise WorkflowRefused(f"{field}.step", rule, source.step)


def _undoing(nodes: list[Node], steps: Mapping[str, StepSpec]) -> list[Node]:
    """The steps that undo others, in the reverse order: each waits for those that undo what comes behind its own step."""
    behind: list[set[int]] = [set() for _ in nodes]
    made: dict[int, int] = {}
    found: list[Node] = []
    for node in reversed(nodes):
        # The next ones behind it that are undone; those behind these wait for them in turn.
        if steps[node.name].compensate is None:
            passed_on = behind[node.number]
        else:
            number = len(nodes) + len(found)
            after = tuple(sorted(made[other] for other in behind[node.number]))
            name = f"{node.name}{UNDOES}"
            found.append(Node(number, name, after, When.FINAL, OnFailure.CONTINUE, node.number))
            made[node.number] = number
            passed_on = {node.number}
        for other in node.after:
            behind[other] |= passed_on
    return found


def _that_undoes(steps: Mapping[str, StepSpec], node: Node) -> StepSpec:
    return steps[node.name.removesuffix(UNDOES)].compensate or StepSpec()
