"""What the groups of settings are made of. Each group is a file; `Settings` is all of them."""

from __future__ import annotations

from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict

KIBIBYTE = 1024
#: Addresses that only this host reaches.
LOOPBACK = ("127.0.0.1", "::1", "localhost")


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


def sentence_of(item: ErrorDetails) -> str:
    """Says which variable broke which rule, and hides secrets and a URL's password."""
    name = "_".join(str(part) for part in item["loc"]).upper()
    if not name:
        # A rule about several settings names them itself.
        return item["msg"].removeprefix("Value error, ")
    given = repr(item["input"])[:80]
    if name.endswith(("_URL", "_ENDPOINT")):
        given = "a URL that is not shown"
    elif name.endswith("_SECRETS"):
        given = "secrets that are not shown"
    elif name.endswith("_AUTH"):
        given = "a password that is not shown"
    return f"{name}: {item['msg'].removeprefix('Value error, ')} (given: {given})"
