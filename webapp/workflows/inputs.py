"""What a step takes from those before it: their results, or parts of them, put into its payload. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from webapp.infra.jsontext import size_of
from webapp.jobs.nesting import MAX_DEPTH, is_deeper
from webapp.workflows.model import Source, StepStatus, Why
from webapp.workflows.pointers import NothingThere, part_of


class Given(NamedTuple):
    """What a step that ended has given.

    Args:
        status: what it came to.
        result: its result, where it completed.
        note: why its result was not kept; None: it was, or there was none.
    """

    status: StepStatus
    result: Any = None
    note: str | None = None


class Unfit(Exception):
    """A payload cannot be put together.

    Args:
        why: in a word.
        words: in a sentence.
    """

    def __init__(self, why: Why, words: str) -> None:
        super().__init__(words)
        self.why = why
        self.words = words

    @property
    def reason(self) -> str:
        """As it is kept."""
        return f"{self.why}: {self.words}"


def with_inputs(
    payload: Mapping[str, Any], inputs: Mapping[str, Source], given: Mapping[str, Given], most: int
) -> dict[str, Any]:
    """The payload with what it takes. A step that did not complete gives null.

    Args:
        given: by the names of steps.
        most: largest payload as JSON, bytes.

    Raises:
        Unfit: a result was not kept or has no such part, or the payload would be too large.

    Example:
        >>> found = Given(StepStatus.COMPLETED, {"rows": 7})
        >>> with_inputs({"task": "noop"}, {"count": Source("extract", "/rows")}, {"extract": found}, 100)
        {'task': 'noop', 'count': 7}
    """
    whole = dict(payload) | {key: taken(key, source, given[source.step]) for key, source in inputs.items()}
    if is_deeper(whole, MAX_DEPTH):
        raise Unfit(
            Why.INPUT_TOO_LARGE, f"with its inputs the payload is nested deeper than {MAX_DEPTH} levels"
        )
    size = size_of(whole)
    if size > most:
        raise Unfit(
            Why.INPUT_TOO_LARGE, f"with its inputs the payload has {size} bytes, and may have {most} at most"
        )
    return whole


def fitting(payload: dict[str, Any], value: Any, room: int) -> dict[str, Any]:
    """A payload with a value of a list, if it is no larger than it may be.

    Args:
        room: how large the value may be as JSON, bytes.

    Raises:
        Unfit: it is, or is nested too deep.
    """
    if is_deeper(value, MAX_DEPTH - 1):
        raise Unfit(Why.INPUT_TOO_LARGE, f"a value of map is nested deeper than {MAX_DEPTH - 1} levels")
    if size_of(value) > room:
        raise Unfit(Why.INPUT_TOO_LARGE, "with a value of map the payload would be larger than it may be")
    return payload


def taken(key: str, source: Source, given: Given) -> Any:
    """What is put in for one input.

    Raises:
        Unfit: as for `with_inputs`.
    """
    if given.status is not StepStatus.COMPLETED:
        return None
    if given.note is not None:
        words = f"input {key!r} is the result of step {source.step!r}, which was not kept: {given.note}"
        raise Unfit(Why.RESULT_NOT_KEPT, words)
    try:
        return part_of(given.result, source.pointer)
    except NothingThere:
        words = f"input {key!r}: the result of step {source.step!r} has nothing at {source.pointer!r}"
        raise Unfit(Why.INPUT_MISSING, words) from None
