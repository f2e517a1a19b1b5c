"""How deep JSON may be nested. Deeper than this it is refused, dropped or left out, so that whatever reads it can. Pure."""

from __future__ import annotations

from typing import Any

#: Deepest nesting of a payload and of a result: lists and objects in each other.
MAX_DEPTH = 64
#: Deepest nesting that is read back. A callback carries a result a few levels down; what is deeper is from an earlier
#: release, which had no limit, and neither pydantic nor orjson writes more than 254 levels.
MAX_READ_DEPTH = 100

_CONTAINERS = (dict, list, tuple)


def is_deeper(value: Any, limit: int, *, most: int | None = None) -> bool:
    """True if lists and objects are nested deeper than `limit`, which is soon known of one that contains itself.

    Args:
        most: stops after so many values and says True: of one that contains the same part many times over there is more
            than memory holds.

    Example:
        >>> is_deeper([[1]], 1), is_deeper([[1]], 2)
        (True, False)
    """
    if not isinstance(value, _CONTAINERS):
        return False
    level: list[Any] = [value]
    seen = 0
    for _ in range(limit):
        inner: list[Any] = []
        for one in level:
            seen += len(one)
            if most is not None and seen > most:
                return True
            for each in one.values() if isinstance(one, dict) else one:
                if isinstance(each, _CONTAINERS):
                    inner.append(each)  # noqa: PERF401 - most have none, and a list for each costs more
        if not inner:
            return False
        level = inner
    return True


def readable(value: Any) -> Any:
    """A stored value as it is shown; one that is too deep to be written as JSON is replaced by a note of why."""
    if is_deeper(value, MAX_READ_DEPTH):
        return {"djps_not_shown": f"nested deeper than {MAX_READ_DEPTH} levels"}
    return value
