"""The quick encoder writes what `json` would write, or nothing."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from uuid import UUID

import pytest
from flask import Flask
from hypothesis import given, settings
from hypothesis import strategies as st

from webapp.api.extensions import QuickJSON
from webapp.infra.jsontext import text_of

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


class Colour(StrEnum):
    RED = "red"


@dataclass
class Point:
    x: int


@settings(max_examples=50)
@given(PLAIN)
def test_plain_data_is_written_as_json_would_write_it_or_not_at_all(data):
    text = text_of(data)
    if text is not None:
        assert text.isascii()
        assert json.loads(text) == data


@pytest.mark.parametrize(
    "data",
    [
        {"name": "café"},
        {"big": 10**30},
        {"half": "\ud800"},
        {1: "a key that is no text"},
        {"at": datetime(2030, 1, 1, tzinfo=UTC)},
        {"point": Point(1)},
        {"all": {1, 2}},
    ],
)
def test_what_there_is_more_to_is_left_to_others(data):
    assert text_of(data) is None


def test_ids_are_written_as_text():
    assert text_of([UUID(int=7)]) == '["00000000-0000-0000-0000-000000000007"]'


@pytest.mark.parametrize(
    "answer", [{"b": 1, "a": [None, True, 0.5]}, {"name": "café", "big": 10**30}, {"colour": Colour.RED}, []]
)
def test_an_answer_is_the_same_text_in_either_way(answer):
    provider = QuickJSON(Flask("test"))
    compact = json.dumps(answer, separators=(",", ":"))
    assert provider.dumps(answer, separators=(",", ":")) == compact
    assert provider.dumps(answer, indent=2) == json.dumps(answer, indent=2)
