"""Arrays and JSON as PostgreSQL's text forms: one constant to a statement instead of one for each value.

psycopg2 writes a list as `ARRAY['..', '..']`, whose every element the server parses and plans for; with 250 of them
that is a third of a settle. The form is described in PostgreSQL's manual, "Array Input and Output Syntax".
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any
from uuid import UUID

#: `json.dumps` with these rules would make an encoder each time.
_JSON = json.JSONEncoder(ensure_ascii=False, allow_nan=False)


def json_of(value: Any) -> str:
    """The text of a JSON column's value.

    Raises:
        TypeError, ValueError, RecursionError: JSON has no such value; NaN and infinities are none.

    Example:
        >>> json_of({"name": "Zürich"})
        '{"name": "Zürich"}'
    """
    return _JSON.encode(value)


#: The end of a number that `jsonb` keeps as digits without an exponent, so that it comes back as a long integer, or as many
#: zeros; and the negative zero, which it does not know. A text may look like one: its payload is kept as well.
_LONG = re.compile(r"e[+-](?:(?<=\+)\d+|[1-9]\d+)(?:[,\]}]|$)", re.ASCII)
_NEGATIVE_ZERO = re.compile(r"-0\.0(?:[,\]}]|$)")


def kept_as_sent(json_text: str | None) -> str | None:
    """The text that a column of type `json` keeps beside one of type `jsonb`; None where the latter gives back what it got.

    `jsonb` keeps numbers as PostgreSQL's `numeric`: 1e22 comes back as 10000000000000000000000, which is an integer to most
    languages, and 1e308 fifty times as long as it was.

    Args:
        json_text: as `json_of` writes it.

    Example:
        >>> kept_as_sent('{"x": 1e+22}'), kept_as_sent('{"x": 0.5, "id": "a-e-17"}')
        ('{"x": 1e+22}', None)
    """
    if json_text is None:
        return None
    if ("e+" in json_text or "e-" in json_text) and _LONG.search(json_text):
        return json_text
    return json_text if "-0.0" in json_text and _NEGATIVE_ZERO.search(json_text) else None


def array_of(values: Iterable[UUID | int | float]) -> str:
    """The literal of an array of ids or numbers.

    Example:
        >>> array_of([1, 2, 3])
        '{1,2,3}'
    """
    return "{" + ",".join(map(str, values)) + "}"


def optional_array_of(values: Iterable[float | None]) -> str:
    """The literal of an array of numbers or truth values; None is NULL.

    Example:
        >>> optional_array_of([1.5, None]), optional_array_of([True])
        ('{1.5,NULL}', '{True}')
    """
    return "{" + ",".join(["NULL" if one is None else str(one) for one in values]) + "}"


def text_array_of(values: Iterable[str | None]) -> str:
    r"""The literal of an array of texts; None is NULL.

    Example:
        >>> text_array_of(["a", None, 'say "hi"'])
        '{"a",NULL,"say \\"hi\\""}'
    """
    return "{" + ",".join("NULL" if one is None else _quoted(one) for one in values) + "}"


def _quoted(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
