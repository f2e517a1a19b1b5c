from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from pathlib import PurePosixPath
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from tasks.attempt.results import MAX_NOTE, keepable

LIMIT = 1_000


class Colour(Enum):
    RED = "red"


class Level(IntEnum):
    HIGH = 3


@dataclass
class Point:
    x: object
    y: object


@dataclass
class Node:
    parts: list


class Order(BaseModel):
    id: int
    at: date


def kept(value):
    text, note = keepable(value, LIMIT)
    assert note is None
    return json.loads(text)


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


def test_no_result_is_no_result():
    assert keepable(None, LIMIT) == (None, None)


@pytest.mark.parametrize(
    "value", [0, False, "", [], {}, {"a": [1, 2.5, None, True]}, "ä😀", "\\u0000 as text", "\\ud800 as text"]
)
def test_json_is_kept_as_it_is(value):
    assert kept(value) == value


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (object(), "a value of type object has no form in JSON"),
        (Point, "a value of type type has no form in JSON"),
        ([b"bytes"], "bytes have no form in JSON: encode them, as base64 for example"),
        ({"a": bytearray(3)}, "bytes have no form in JSON"),
        ({(1, 2): 3}, "a key of type tuple has no form in JSON"),
        ({date(2030, 1, 1): 1, "2030-01-01": 2}, "two keys of an object have the same text"),
        ({"at": date(2030, 1, 1), "n": float("nan")}, "ValueError"),
        (Node([Node([])] * LIMIT), "nested deeper than 64 levels"),
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
def test_of_a_result_that_cannot_be_kept_the_reason_is(value, why):
    text, note = keepable(value, LIMIT)
    assert text is None
    assert why in note
    assert len(note) <= MAX_NOTE


def test_of_a_result_that_contains_itself_the_reason_is_kept():
    loop = []
    loop.append(loop)
    node = Node([])
    node.parts.append(node)
    for one in (loop, node):
        assert "nested deeper than 64 levels" in keepable(one, LIMIT).note


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (datetime(2026, 1, 1, 12, 30, tzinfo=UTC), "2026-01-01T12:30:00+00:00"),
        (datetime(2026, 1, 1), "2026-01-01T00:00:00"),  # noqa: DTZ001 - a handler may return one
        (date(2026, 1, 2), "2026-01-02"),
        (time(3, 4), "03:04:00"),
        (timedelta(minutes=1, milliseconds=500), 60.5),
        (UUID(int=5), "00000000-0000-0000-0000-000000000005"),
        (Decimal("9.90"), "9.90"),
        (PurePosixPath("/srv/a"), "/srv/a"),
        (Colour.RED, "red"),
        (Level.HIGH, 3),
        ({3, 1, 2}, [1, 2, 3]),
        (frozenset({"b", "a"}), ["a", "b"]),
        ({1, "a"}, ["a", 1]),
        (Point(1, Decimal(2)), {"x": 1, "y": "2"}),
        (Order(id=7, at=date(2026, 1, 2)), {"id": 7, "at": "2026-01-02"}),
        ({UUID(int=1): {date(2026, 1, 2): Colour.RED}}, {str(UUID(int=1)): {"2026-01-02": "red"}}),
        (
            [Point(Order(id=1, at=date(2026, 1, 2)), {Colour.RED})],
            [{"x": {"id": 1, "at": "2026-01-02"}, "y": ["red"]}],
        ),
        ((1, {"a": (2, {Decimal(3)})}), [1, {"a": [2, ["3"]]}]),
    ],
    ids=repr,
)
def test_what_python_has_and_json_has_not_is_kept_in_its_usual_form(value, expected):
    assert kept(value) == expected


def test_a_note_can_be_stored_whatever_a_class_is_called():
    long = type("N" * 1_000, (), {})
    assert keepable(long(), LIMIT).note.startswith("a value of type NNN")

    class Named(type):
        __name__ = property(lambda cls: "a\udfff\x00b")

    assert "\\udfff\\x00b" in keepable(Named("x", (), {})(), LIMIT).note


@pytest.mark.parametrize(("size", "kept"), [(LIMIT - 2, True), (LIMIT - 1, False)])
def test_the_limit_counts_the_bytes_of_the_text(size, kept):
    assert (keepable("x" * size, LIMIT).note is None) is kept


@given(
    st.recursive(
        st.none() | st.integers() | st.text(), lambda inner: st.lists(inner, max_size=3), max_leaves=5
    )
)
def test_what_is_kept_is_always_json(value):
    text, note = keepable(value, LIMIT)
    assert text is None or (note is None and json.loads(text) == value)
