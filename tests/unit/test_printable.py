"""Text that a terminal only shows."""

from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webapp.infra.telemetry.printable import escaped, escaped_json

#: What steers a terminal or turns what is read on it.
CONTROLS = ["\x00", "\x07", "\x08", "\r", "\n", "\t", "\x1b", "\x7f", "\x80", "\x9b", "\x9d", "\u200b", "\u200e", "\u202e", "\u2028", "\u2029",
            "\u2066", "\ufeff", "\U000e0001", "\ue000", "\ud800"]  # fmt: skip


@pytest.mark.parametrize("character", CONTROLS, ids=ascii)
def test_what_steers_a_terminal_is_escaped(character):
    shown = escaped(f"a{character}b")
    assert character not in shown
    assert shown.isascii()
    shown = escaped_json(json.dumps(f"a{character}b", ensure_ascii=False))
    assert character not in shown
    assert json.loads(shown) == f"a{character}b"


@pytest.mark.parametrize("text", ["", "plain", "Zürich, 東京\u3000", "a\u00a0b", "😀", "e\u0301", "\\\\x1b"])
def test_what_is_only_read_stays(text):
    assert escaped(text) == text
    assert escaped_json(text) == text


@given(
    st.recursive(
        st.text(), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
    )
)
def test_json_means_the_same(value):
    shown = escaped_json(json.dumps(value, ensure_ascii=False, indent=2))
    assert json.loads(shown) == value
    assert not [one for one in shown if unicodedata.category(one)[0] == "C" and one != "\n"]


@given(st.text())
def test_a_line_is_one(text):
    assert len(escaped(text).splitlines()) <= 1
