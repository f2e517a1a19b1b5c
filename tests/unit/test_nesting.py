"""How deep JSON may be nested, for everything that is nested."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.attempt.results import keepable
from webapp.jobs.callbacks import Ending, payload_of
from webapp.jobs.nesting import MAX_DEPTH, MAX_READ_DEPTH, is_deeper, readable
from webapp.jobs.request import SubmitRequest


def lists(depth):
    value = []
    for _ in range(depth - 1):
        value = [value]
    return value


def objects(depth):
    value = {}
    for _ in range(depth - 1):
        value = {"a": value, "b": 1}
    return value


def depth_of(value):
    if isinstance(value, dict):
        return 1 + max(map(depth_of, value.values()), default=0)
    return 1 + max(map(depth_of, value), default=0) if isinstance(value, (list, tuple)) else 0


@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=2),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
        max_leaves=20,
    ),
    st.integers(0, 8),
)
def test_depth_is_counted_in_lists_and_objects(value, limit):
    assert is_deeper(value, limit) is (depth_of(value) > limit)


@pytest.mark.parametrize("nest", [lists, objects])
def test_payload_and_result_are_bounded_alike(nest):
    at, over = nest(MAX_DEPTH), nest(MAX_DEPTH + 1)
    assert json.loads(keepable(at, 10_000).text) == at
    assert "deeper than 64 levels" in keepable(over, 10_000).note
    SubmitRequest.model_validate({"payload": {"a": nest(MAX_DEPTH - 1)}})
    with pytest.raises(ValueError, match="deeper than 64 levels"):
        SubmitRequest.model_validate({"payload": {"a": at}})


def test_a_number_at_the_bottom_is_no_level():
    bottom = lists(MAX_DEPTH - 1)
    at = bottom
    while at:
        at = at[0]
    at.append(1)
    SubmitRequest.model_validate({"payload": {"a": bottom}})


def test_a_value_that_holds_itself_many_times_over_ends_the_count():
    value = [1, 2, 3]
    for _ in range(60):
        value = [value] * 10
    assert is_deeper(value, MAX_DEPTH, most=10_000)
    assert "MAX_RESULT_BYTES" in keepable(value, 10_000).note


@pytest.mark.parametrize(
    ("depth", "shown"), [(1, True), (MAX_READ_DEPTH, True), (MAX_READ_DEPTH + 1, False), (5_000, False)]
)
def test_what_was_stored_deeper_is_replaced_by_a_note_when_it_is_read(depth, shown):
    assert (
        readable(lists(depth)) == {"djps_not_shown": f"nested deeper than {MAX_READ_DEPTH} levels"}
    ) is not shown


@pytest.mark.parametrize(("depth", "omitted"), [(MAX_DEPTH, False), (MAX_DEPTH + 1, True), (260, True)])
def test_a_callback_leaves_out_a_result_that_is_too_deep(depth, omitted):
    now = datetime(2030, 1, 1, tzinfo=UTC)
    ending = Ending(
        UUID(int=1),
        "http://h/",
        "completed",
        "noop",
        "default",
        1,
        0,
        [],
        lists(depth),
        False,
        None,
        None,
        now,
        now,
    )
    payload = payload_of(ending)
    assert payload["json"]["data"]["result_omitted"] is omitted
    assert (payload["json"]["data"]["result"] is None) is omitted
    assert readable(payload) == payload
