"""JSON Pointers (RFC 6901): which part of a result is meant. Pure."""

from __future__ import annotations

import re
from typing import Any, Final

#: Longest pointer, characters; and most parts of one.
LONGEST: Final = 500
MOST_PARTS: Final = 64
_ESCAPED = re.compile(r"~[01]")
_WRONG_TILDE = re.compile(r"~(?![01])")
_INDEX = re.compile(r"0|[1-9][0-9]{0,8}")


class NothingThere(Exception):
    """A value has no such part."""


def parts_of(pointer: str) -> list[str]:
    """The names and places that lead to the part.

    Raises:
        ValueError: it is no pointer.

    Example:
        >>> parts_of("/rows/0/a~1b"), parts_of("")
        (['rows', '0', 'a/b'], [])
    """
    if pointer == "":
        return []
    if not pointer.startswith("/"):
        raise ValueError('must be a JSON Pointer: "" for all of it, or / before each part, such as /rows/0')
    if _WRONG_TILDE.search(pointer):
        raise ValueError("must be a JSON Pointer: a ~ in it is written ~0, and a / in a name ~1")
    parts = pointer[1:].split("/")
    if len(parts) > MOST_PARTS:
        raise ValueError(f"must have at most {MOST_PARTS} parts")
    return [_ESCAPED.sub(lambda one: "~" if one[0] == "~0" else "/", part) for part in parts]


def part_of(value: Any, pointer: str) -> Any:
    """The part of a value.

    Raises:
        NothingThere: it has none such.
        ValueError: it is no pointer.

    Example:
        >>> part_of({"rows": [{"id": 7}]}, "/rows/0/id")
        7
    """
    for part in parts_of(pointer):
        if isinstance(value, dict) and part in value:
            value = value[part]
        elif isinstance(value, list) and _INDEX.fullmatch(part) and int(part) < len(value):
            value = value[int(part)]
        else:
            raise NothingThere(pointer)
    return value
