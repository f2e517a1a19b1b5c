"""Values that Python has and JSON has not, in the form in which JSON's readers expect them: results of handlers have them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any
from uuid import UUID

from pydantic import BaseModel

#: What JSON has itself.
_SCALARS = (str, int, float, bool, type(None))
#: What is written as the text that Python writes of it.
_TEXTS = (UUID, Decimal, PurePath)
_MOMENTS = (datetime, date, time)
_BYTES = (bytes, bytearray, memoryview)


class NotJson(TypeError):
    """A value has no form in JSON; the message says which."""


class TooLarge(ValueError):
    """There are more values than may be, or they are nested deeper."""


def plain(value: Any, *, depth: int, most: int) -> Any:
    """A value made of what JSON has: objects, lists, texts, numbers.

    Moments become ISO 8601, ids, decimals and paths their text, durations seconds, an enum's member its value, sets sorted lists,
    dataclasses and pydantic's models objects.

    Args:
        depth: deepest nesting.
        most: values in all.

    Raises:
        NotJson: there is another kind of value in it; bytes are one, for JSON has no bytes.
        TooLarge: it is nested deeper, or has more values; one that contains itself has.

    Example:
        >>> plain({"at": date(2030, 1, 1), "price": Decimal("9.90"), "tags": {"b", "a"}}, depth=4, most=100)
        {'at': '2030-01-01', 'price': '9.90', 'tags': ['a', 'b']}
    """
    return _Maker(most).made(value, depth)


class _Maker:
    def __init__(self, most: int) -> None:
        self._left = most

    def made(self, value: Any, depth: int) -> Any:
        self._left -= 1
        if self._left < 0 or depth < 0:
            raise TooLarge
        if isinstance(value, Enum):
            return self.made(value.value, depth)
        if isinstance(value, _SCALARS):
            return value
        if isinstance(value, Mapping):
            return self._object(value.items(), depth)
        if isinstance(value, (list, tuple)):
            return [self.made(one, depth - 1) for one in value]
        if isinstance(value, (set, frozenset)):
            return [self.made(one, depth - 1) for one in _sorted(value)]
        return self._other(value, depth)

    def _other(self, value: Any, depth: int) -> Any:
        if isinstance(value, _MOMENTS):
            return value.isoformat()
        if isinstance(value, _TEXTS):
            return str(value)
        if isinstance(value, timedelta):
            return value.total_seconds()
        if isinstance(value, BaseModel):
            return self.made(value.model_dump(mode="json"), depth)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            names = [field.name for field in dataclasses.fields(value)]
            return self._object([(name, getattr(value, name)) for name in names], depth)
        if isinstance(value, _BYTES):
            raise NotJson("bytes have no form in JSON: encode them, as base64 for example")
        raise NotJson(f"a value of type {type(value).__name__} has no form in JSON")

    def _object(self, items: Iterable[tuple[Any, Any]], depth: int) -> dict[Any, Any]:
        found = [(_key(key), self.made(value, depth - 1)) for key, value in items]
        made = dict(found)
        if len(made) < len(found):
            raise NotJson("two keys of an object have the same text")
        return made


def _key(key: Any) -> Any:
    if isinstance(key, Enum):
        return _key(key.value)
    if isinstance(key, _SCALARS):
        return key
    if isinstance(key, _MOMENTS):
        return key.isoformat()
    if isinstance(key, _TEXTS):
        return str(key)
    raise NotJson(f"a key of type {type(key).__name__} has no form in JSON")


def _sorted(values: Iterable[Any]) -> list[Any]:
    """In one order, whatever order a set has them in: two runs of one job give one result."""
    found = list(values)
    try:
        return sorted(found)
    except TypeError:
        return sorted(found, key=repr)
