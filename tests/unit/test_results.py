from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.attempt.results import keepable

LIMIT = 1_000


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


def test_no_result_is_no_result():
    assert keepable(None, LIMIT) is None


@pytest.mark.parametrize(
    "value", [0, False, "", [], {}, {"a": [1, 2.5, None, True]}, "ä😀", "\\u0000 as text", "\\ud800 as text"]
)
def test_json_is_kept_as_it_is(value):
    assert json.loads(keepable(value, LIMIT)) == value


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (object(), "TypeError"),
        (datetime(2026, 1, 1, tzinfo=UTC), "TypeError"),
        ({1, 2}, "TypeError"),
        (b"bytes", "TypeError"),
        ({(1, 2): 3}, "TypeError"),
        (float("nan"), "ValueError"),
        ([float("inf")], "ValueError"),
        ("x" * LIMIT, "1002 bytes are more than MAX_RESULT_BYTES (1000)"),
        ("a\x00b", "\\u0000"),
        ({"a\x00": 1}, "\\u0000"),
        ("\ud800", "lone surrogates"),
        ({"\udfff": 1}, "lone surrogates"),
        (nested(65), "nested deeper than 64 levels"),
        (nested(100_000), "nested deeper than 64 levels"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else value[:12],
)
def test_a_result_that_cannot_be_kept_is_replaced_by_the_reason(value, why):
    assert why in json.loads(keepable(value, LIMIT))["djps_result_dropped"]


def test_a_result_that_contains_itself_is_replaced_by_the_reason():
    loop = []
    loop.append(loop)
    assert "nested deeper than 64 levels" in keepable(loop, LIMIT)


@pytest.mark.parametrize(("size", "kept"), [(LIMIT - 2, True), (LIMIT - 1, False)])
def test_the_limit_counts_the_bytes_of_the_text(size, kept):
    assert ("djps_result_dropped" not in keepable("x" * size, LIMIT)) is kept


@given(
    st.recursive(
        st.none() | st.integers() | st.text(), lambda inner: st.lists(inner, max_size=3), max_leaves=5
    )
)
def test_what_is_kept_is_always_json(value):
    kept = keepable(value, LIMIT)
    assert kept is None or json.loads(kept) is not None
