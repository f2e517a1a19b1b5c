"""What the groups of settings are made of. Each group is a file; `Settings` is all of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict

KIBIBYTE = 1024
#: Addresses that only this host reaches.
LOOPBACK = ("127.0.0.1", "::1", "localhost")
#: How a bound is said. `ops up` says the same before anything is installed.
_LIMITS = {"ge": "from", "gt": "above", "le": "to", "lt": "below"}

#: What is said of a value that is not shown, by how the variable's name ends.
_NOT_SHOWN = {
    "_URL": "a URL that is not shown",
    "_ENDPOINT": "a URL that is not shown",
    "_SECRETS": "secrets that are not shown",
    "_KEY": "a key that is not shown",
    "_BASIC_AUTH": "a password that is not shown",
    # It may be the key itself.
    "_SHA256": "a text that is not shown",
}


class SettingsError(ValueError):
    """A setting is missing or out of bounds."""


class Group(BaseSettings):
    """Settings that belong together: fields with unit, default and bounds, and the rules between them.

    A validator raises `ValueError` with the rule as its text. The name of the variable and what was given are put around it.
    """

    model_config = SettingsConfigDict(extra="ignore", frozen=True, env_ignore_empty=False)


def items_of(value: str) -> tuple[str, ...]:
    """The items of a comma-separated list.

    Example:
        >>> items_of("mail, reports,")
        ('mail', 'reports')
    """
    return tuple(item.strip() for item in value.split(",") if item.strip())


def sentence_of(item: ErrorDetails, fields: Mapping[str, FieldInfo]) -> str:
    """Says which variable broke which rule, and hides secrets and a URL's password.

    Args:
        item: what pydantic found.
        fields: those of the settings, by name.
    """
    name = "_".join(str(part) for part in item["loc"]).upper()
    words = item["msg"].removeprefix("Value error, ")
    if not name:
        # A rule about several settings names them itself.
        return words
    if item["type"] != "value_error":
        field = next((one for key, one in fields.items() if name in (one.alias, key.upper())), None)
        words = (field and rule_of(field)) or words
    hidden = (told for end, told in _NOT_SHOWN.items() if name.endswith(end))
    given = next(hidden, repr(item["input"])[:80])
    return f"{name}: {words} (given: {given})"


def is_secret(name: str) -> bool:
    """True if a variable's value is not shown.

    Example:
        >>> is_secret("DATABASE_URL"), is_secret("API_PORT")
        (True, False)
    """
    return name.endswith(tuple(_NOT_SHOWN))


def rule_of(field: FieldInfo) -> str | None:
    """What a field may be, in words, as far as its annotation and bounds say; None for one that takes any text."""
    bounds = {
        limit: getattr(one, limit) for one in field.metadata for limit in _LIMITS if hasattr(one, limit)
    }
    if field.annotation in (int, float):
        kind = "a whole number" if field.annotation is int else "a number"
        limits = [f"{_LIMITS[limit]} {bounds[limit]:.12g}" for limit in sorted(bounds)]
        return " ".join([f"must be {kind}", *limits])
    if get_origin(field.annotation) is Literal:
        return f"must be one of {', '.join(map(str, get_args(field.annotation)))}"
    pattern = next((found for one in field.metadata if (found := getattr(one, "pattern", None))), None)
    return f"must match {pattern}" if pattern else None
