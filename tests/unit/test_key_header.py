from __future__ import annotations

import pytest
from werkzeug.exceptions import BadRequest

from webapp.api.keys import key_in, one_key


@pytest.mark.parametrize(
    ("header", "key"),
    [
        ('"order-17"', "order-17"),
        ("order-17", "order-17"),
        ('"a b"', "a b"),
        ("a b", "a b"),
        (r'"say \"hi\" \\o/"', r'say "hi" \o/'),
        ('"k";v=1', "k"),
        ('"k" ; v', "k"),
        ("8e03978e-40d5-43e8-bc93-6894a57f9324", "8e03978e-40d5-43e8-bc93-6894a57f9324"),
        ('a"b', 'a"b'),
        ("k" * 255, "k" * 255),
    ],
)
def test_a_key_is_read_in_quotes_and_without(header, key):
    assert key_in(header) == key


@pytest.mark.parametrize(
    "header",
    [
        "",
        '""',
        '"',
        '"a',
        r'"a\b"',
        '"a" b',
        '"a", "b"',
        "a\x00",
        "ä",
        '"ä"',
        "k" * 256,
        '"%s"' % ("k" * 256),
        " ",
    ],
)
def test_a_header_that_is_no_key_is_a_bad_request(header):
    with pytest.raises(BadRequest):
        key_in(header)


def test_header_and_field_name_one_key():
    assert one_key(None, None) is None
    assert one_key(None, "k") == one_key("k", None) == one_key('"k"', "k") == "k"
    with pytest.raises(BadRequest, match="must be the same"):
        one_key('"k"', "other")
