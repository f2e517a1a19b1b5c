"""JSON as DJPS takes it: what two readers could understand differently is refused, not guessed."""

from __future__ import annotations

import codecs
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

from pydantic_core import from_json

#: Most values in one body. An empty list takes 2 bytes of JSON and 64 of memory, so bytes alone bound nothing.
MAX_VALUES = 500_000
#: Bodies below this cannot have more than that, bytes.
_MAY_HAVE_TOO_MANY = 2 * MAX_VALUES
#: How much of a text is stripped of its strings at a time, bytes: one that is all quotes falls into as many pieces.
_PIECE = 64 * 1024
#: Byte order marks, and what they stand for; the longer ones first.
_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
    codecs.BOM_UTF8: "UTF-8",
}


class BadBody(ValueError):
    """A body is not JSON that DJPS can keep unchanged.

    Args:
        rule: what it broke, in words.
        field: the path of the offending value, where it has one.
        given: what was found there.
    """

    def __init__(self, rule: str, field: str = "body", given: str = "the request's body") -> None:
        super().__init__(rule if field == "body" else f"{field}: {rule}")
        self.rule = rule
        self.field = field
        self.given = given


def read_json(body: bytes) -> Any:
    """Parses a body strictly: no NaN or Infinity, no lone surrogates, no endless nesting, no key twice in one object.

    Raises:
        BadBody: it is not JSON, or breaks one of these rules.
    """
    if not body.strip():
        raise BadBody("the body must be a JSON object; it is empty")
    if body.startswith(tuple(_MARKS)):
        encoding = next(encoding for mark, encoding in _MARKS.items() if body.startswith(mark))
        raise BadBody(
            f"the body must be JSON in UTF-8 without a byte order mark; it begins with {encoding}'s"
        )
    if len(body) > _MAY_HAVE_TOO_MANY and _values_at_most(body) > MAX_VALUES:
        raise BadBody(f"the body must have at most {MAX_VALUES:,} values")
    try:
        found = from_json(body, allow_inf_nan=False, cache_strings="keys")
    except ValueError as error:
        raise BadBody(f"the body must be JSON: {error}") from error
    _refuse_repeated(body, found)
    return found


def _values_at_most(body: bytes) -> int:
    """How many values a text has at most: all but the first of a container follow a comma."""
    if (roughly := _separators(body)) <= MAX_VALUES:
        return roughly
    return sum(map(_separators, outside_strings(body)))


def outside_strings(body: bytes) -> Iterator[bytes]:
    r"""What of a JSON text is not in strings, in parts; a string that is not closed goes to the end.

    Example:
        >>> b"".join(outside_strings(b'{"a:": ["b\\\\",1]}'))
        b'{: [,1]}'
    """
    # Without the escapes every quote begins or ends a string. Pairs of backslashes go first: a quote after one is none of theirs.
    body = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    is_inside = False
    for start in range(0, len(body), _PIECE):
        parts = body[start : start + _PIECE].split(b'"')
        yield b"".join(parts[is_inside::2])
        is_inside ^= len(parts) % 2 == 0


def _separators(body: bytes) -> int:
    return body.count(b",") + body.count(b"[") + body.count(b"{")


def _refuse_repeated(body: bytes, found: Any) -> None:
    """Refuses a key that an object has twice: of its two values, each reader keeps another.

    A parser keeps one of them and says nothing. But each pair has a colon, so the text has more colons than the parsed
    objects have keys; those in strings are left out only where that could matter.

    Raises:
        BadBody: with the path of the key.
    """
    pairs = _pairs_in(found)
    if body.count(b":") == pairs or sum(part.count(b":") for part in outside_strings(body)) == pairs:
        return
    path = _path_of_repeated(json.loads(body, object_pairs_hook=_Seen))
    raise BadBody("must be given once", path[:200].encode("ascii", "backslashreplace").decode(), "twice")


def _pairs_in(value: Any) -> int:
    pairs = 0
    pending = [value]
    while pending:
        inner = pending.pop()
        if type(inner) is dict:
            pairs += len(inner)
            pending.extend(inner.values())
        elif type(inner) is list:
            pending.extend(inner)
    return pairs


class _Seen(dict[str, Any]):
    """An object that knows which of its keys came twice."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.repeated: str | None = None
        if len(self) < len(pairs):
            self.repeated = Counter(key for key, _ in pairs).most_common(1)[0][0]


def _path_of_repeated(value: Any) -> str:
    pending: list[tuple[str, Any]] = [("", value)]
    while pending:
        path, inner = pending.pop()
        if isinstance(inner, _Seen):
            if inner.repeated is not None:
                return f"{path}{inner.repeated}"
            pending.extend((f"{path}{key}.", one) for key, one in inner.items())
        elif isinstance(inner, list):
            pending.extend((f"{path}{index}.", one) for index, one in enumerate(inner))
    return "body"
