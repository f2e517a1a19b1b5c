"""The settings in force, each with its value, its default, and where it comes from. Secrets are not shown."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

from dotenv import dotenv_values

from webapp.settings import Settings, env_file
from webapp.settings.group import is_secret, rule_of

#: What stands for a secret that is set.
SET = "set"


class Source(StrEnum):
    """Where a setting's value comes from."""

    #: The environment of the process.
    ENVIRONMENT = "environment"
    #: The file that settings are read from.
    FILE = "file"
    #: The running stack of this clone: `ops up` says where its servers are.
    STACK = "stack"
    #: It was not set.
    DEFAULT = "default"


class Setting(NamedTuple):
    """A setting as it may be shown.

    Args:
        name: the variable.
        value: what holds; `set`, or an empty text, where it is a secret.
        default: what holds where it is not set.
        rule: what it may be, as far as that can be said in a few words.
    """

    name: str
    value: Any
    default: Any
    source: Source
    is_secret: bool
    rule: str | None
    description: str


def settings_of(settings: Settings, environment: Iterable[str], file: Iterable[str]) -> list[Setting]:
    """All settings, in their order. Pure.

    Args:
        settings: those in force.
        environment: the names of the variables of the process.
        file: the names in the file of settings.
    """
    named = {Source.ENVIRONMENT: frozenset(environment), Source.FILE: frozenset(file)}
    return [_setting(settings, field, named) for field in type(settings).model_fields]


def _setting(settings: Settings, field: str, named: Mapping[Source, frozenset[str]]) -> Setting:
    about = type(settings).model_fields[field]
    name = (about.alias or field).upper()
    value = getattr(settings, field)
    otherwise = Source.DEFAULT if value == about.default else Source.STACK
    source = next((source for source, names in named.items() if name in names), otherwise)
    secret = is_secret(name)
    return Setting(
        name,
        _shown(value, secret=secret),
        _plain(about.default),
        source,
        secret,
        rule_of(about),
        about.description or "",
    )


def _shown(value: Any, *, secret: bool) -> Any:
    if secret:
        return SET if value else ""
    return _plain(value)


def _plain(value: Any) -> Any:
    return value if isinstance(value, bool | int | float | str) else str(value)


def in_force(settings: Settings) -> list[Setting]:
    """The settings of this process."""
    file = env_file()
    names = dotenv_values(file, interpolate=False) if file and Path(file).is_file() else {}
    return settings_of(settings, os.environ, names)
