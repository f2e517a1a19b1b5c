"""Rules that a request broke, in the words of JSON: which field, which rule, what was given."""

from __future__ import annotations

from pydantic_core import ErrorDetails

from webapp.jobs.request import SHAPES

#: Longest path of a field that is named, characters.
LONGEST_PATH = 200

#: Rules that pydantic words for Python programmers, in the words of JSON; braces take a rule's own values.
_RULES = {
    "bool_type": "must be true or false",
    "enum": "must be {expected}",
    "finite_number": "must be a finite number",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "int_from_float": "must be an integer",
    "int_parsing": "must be an integer",
    "int_type": "must be an integer",
    "less_than_equal": "must be at most {le}",
    "list_type": "must be an array",
    "literal_error": "must be {expected}",
    "string_too_long": "must have at most {max_length} characters",
    "string_too_short": "must have at least {min_length} characters",
    "too_long": "must have at most {max_length} items",
    "too_short": "must have at least {min_length} items",
    "uuid_parsing": "must be a UUID",
    "uuid_type": "must be a UUID",
    "dict_type": "must be a JSON object",
    "model_type": "must be a JSON object",
    "string_type": "must be a string",
    "missing": "is required",
    "extra_forbidden": "is not a field of this request",
}


def field_of(item: ErrorDetails, *under: str) -> str:
    """The path of the field.

    Args:
        under: the path of the value that was looked at.
    """
    return ".".join(str(part) for part in (*under, *item["loc"]) if part not in SHAPES)[:LONGEST_PATH]


def rule_of(item: ErrorDetails) -> str:
    """The rule in our words, or in its author's own."""
    words = _RULES.get(item["type"])
    if words is None:
        return item["msg"].removeprefix("Value error, ")
    return words.format(**{name: _plain(value) for name, value in item.get("ctx", {}).items()})


def _plain(value: object) -> object:
    """A bound without a `.0`."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def shown(value: object) -> str:
    """A value as it is repeated to who gave it: short, and in ASCII."""
    text = repr(value) if isinstance(value, (str, int, float, bool, type(None))) else type(value).__name__
    return text[:100].encode("ascii", "backslashreplace").decode()
