"""Arrays and JSON as PostgreSQL's text forms: one constant to a statement instead of one for each value.

psycopg2 writes a list as `ARRAY['..', '..']`, whose every element the server parses and plans for; with 250 of them
that is a third of a settle. The form is described in PostgreSQL's manual, "Array Input and Output Syntax".
"""

from __future__ import annotations

import json
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


def array_of(values: Iterable[UUID | int | float]) -> str:
    """The literal of an array of ids or numbers.

    Example:
        >>> array_of([1, 2, 3])
        '{1,2,3}'
    """
    return "{" + ",".join(map(str, values)) + "}"


def text_array_of(values: Iterable[str | None]) -> str:
    r"""The literal of an array of texts; None is NULL.

    Example:
        >>> text_array_of(["a", None, 'say "hi"'])
        '{"a",NULL,"say \\"hi\\""}'
    """
    return "{" + ",".join("NULL" if one is None else _quoted(one) for one in values) + "}"


def _quoted(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
