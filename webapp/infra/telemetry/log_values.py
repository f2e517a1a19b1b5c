"""What of a log call can be written, whatever a handler has given it: one line of JSON, and never an error. Pure."""

from __future__ import annotations

import json
import logging
from typing import Any

#: Longest line that is written as it is, characters; of a longer one each field is cut.
MAX_LINE = 65_536
#: Longest field of a line that was cut, and longest description of a value that JSON does not have, characters.
MAX_FIELD = 4_000
#: Most fields of a line that was cut.
MAX_FIELDS = 50


def described(value: object) -> str:
    """A value in words, whatever its `__repr__` does.

    Example:
        >>> described({1, 2})
        '{1, 2}'
    """
    try:
        return shortened(repr(value))
    except Exception as error:  # noqa: BLE001 - a handler's class may raise anything
        return f"<{type(value).__name__} ({type(error).__name__} in its repr)>"


def shortened(text: str) -> str:
    """The beginning of a long text, and how much was left out."""
    return (
        text if len(text) <= MAX_FIELD else f"{text[:MAX_FIELD]}… ({len(text) - MAX_FIELD} more characters)"
    )


def sentence_of(record: logging.LogRecord) -> str:
    """A record's sentence; where its arguments do not fit, it and they."""
    try:
        return record.getMessage()
    except Exception as error:  # noqa: BLE001 - a handler's arguments may raise anything
        words = record.msg if isinstance(record.msg, str) else described(record.msg)
        return (
            f"{shortened(words)} (its arguments do not fit, {type(error).__name__}: {described(record.args)})"
        )


def plain(value: Any) -> Any:
    """The value as JSON has it, of one that it does not have the text, and of a long one the beginning."""
    if isinstance(value, str):
        return shortened(value)
    try:
        text = json.dumps(value, default=str)
        return json.loads(text) if len(text) <= MAX_FIELD else shortened(text)
    except Exception:  # noqa: BLE001 - circles, depth, foreign classes
        return described(value)


def placed(fields: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """Fields and more of them; one whose name is taken stands beside it as `extra_...`.

    Example:
        >>> placed({"level": "INFO"}, {"level": "FORGED", "to": "ada"})
        {'level': 'INFO', 'extra_level': 'FORGED', 'to': 'ada'}
    """
    for name, value in more.items():
        if name not in fields:
            fields[name] = value
        elif fields[name] is not value and fields[name] != value:
            fields[f"extra_{name}"] = value
    return fields
