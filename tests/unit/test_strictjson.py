from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webapp.api import strictjson
from webapp.api.strictjson import MAX_VALUES, BadBody, read_json

#: Texts that look like structure.
TEXTS = st.text(alphabet='ab":,{}[]\\é', max_size=8)
VALUES = st.recursive(
    st.none() | st.integers(-9, 9) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ('{"a": 1, "a": 1}', "a"),
        ('{"a": 1, "\\u0061": 2}', "a"),
        ('{"payload": {"to": "x", "to": "y"}}', "payload.to"),
        ('{"payload": {"n": 1}, "payload": {"n": 2}}', "payload"),
        ('{"jobs": [{}, {"payload": {"a:b": [{"c": 1, "c": {}}]}}]}', "jobs.1.payload.a:b.0.c"),
        ('[{"": 1, "": 2}]', "0."),
        ('{"a": {"x": 1, "x": 2}, "a": 3}', "a"),
        ('{"é": 1, "é": 2}', "\\xe9"),
    ],
)
def test_a_key_that_comes_twice_is_refused_with_its_path(body, field):
    with pytest.raises(BadBody) as refused:
        read_json(body.encode())
    assert (refused.value.field, refused.value.rule) == (field, "must be given once")


@given(VALUES)
def test_no_other_body_is_refused_for_it(value):
    assert read_json(json.dumps(value).encode()) == value


@given(st.dictionaries(TEXTS, VALUES, min_size=1, max_size=4), st.data())
def test_whichever_key_comes_twice_is_found(value, data):
    again = data.draw(st.sampled_from(sorted(value)))
    body = json.dumps(value)[:-1] + f",{json.dumps(again)}:{json.dumps(data.draw(VALUES))}}}"
    with pytest.raises(BadBody, match="must be given once"):
        read_json(body.encode())


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_is_refused_in_words(encoding):
    with pytest.raises(BadBody, match=r"without a byte order mark; it begins with UTF-(8|16|32)'s"):
        read_json('{"payload": {}}'.encode(encoding))


@pytest.mark.parametrize("one", [b"[]", b"{}", b"0"])
def test_more_values_than_memory_is_for_are_refused(one):
    assert len(read_json(b"[" + b",".join([one] * (MAX_VALUES // 2)) + b"]")) == MAX_VALUES // 2
    with pytest.raises(BadBody, match="at most 500,000 values"):
        read_json(b"[" + b",".join([one] * (MAX_VALUES + 1)) + b"]")


def test_commas_in_texts_are_no_values():
    table = "1,2,3,4\n" * (MAX_VALUES // 2)
    assert read_json(json.dumps({"payload": {"csv": table}}).encode())["payload"]["csv"] == table


@given(st.text(alphabet='a"\\\\:', max_size=60), st.integers(1, 9))
def test_strings_are_left_out_wherever_a_piece_ends(text, piece):
    body = json.dumps({"k": [text, {text: 1}], text + "kk": text}).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(strictjson, "_PIECE", piece)
        assert b"".join(strictjson.outside_strings(body)) == b"{: [, {: 1}], : }"


@pytest.mark.parametrize(
    "text",
    [b'"' + b'\\"' * 500_000, b'"a' + b'"\\' * 500_000, b'"' * 999_999, b'"\\' * 500_000],
    ids=["never closed", "ends with a backslash", "only quotes", "a backslash after each"],
)
def test_no_text_takes_long_to_strip_of_its_strings(text):
    began = time.perf_counter()
    assert sum(map(len, strictjson.outside_strings(text))) < len(text)
    assert time.perf_counter() - began < 1
