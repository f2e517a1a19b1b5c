"""Every setting of DJPS: its name, unit, default and bounds.

Values come from the environment, then from the file that `DJPS_ENV_FILE` names (`.env` by default),
then from the defaults here. They are checked once, at start; a wrong value stops the process with one
sentence that names the variable, the rule and what was given.
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

from dotenv.parser import parse_stream
from pydantic import ValidationError, ValidationInfo, field_validator

from webapp.settings.group import SettingsError, sentence_of
from webapp.settings.http import HttpSettings
from webapp.settings.jobs import JobSettings
from webapp.settings.local import read_note
from webapp.settings.outbound import OutboundSettings
from webapp.settings.servers import ServerSettings
from webapp.settings.telemetry import TelemetrySettings

__all__ = [
    "Settings",
    "SettingsError",
    "SettingsWithoutDatabase",
    "current",
    "env_file",
    "reaching_stack",
    "use",
]


class Settings(TelemetrySettings, OutboundSettings, HttpSettings, JobSettings, ServerSettings):
    """The settings of every DJPS process, validated.

    Example:
        >>> Settings(max_job_retries=5).max_job_retries
        5
    """

    @classmethod
    def load(cls) -> Settings:
        """Reads and checks the settings of this process.

        Raises:
            SettingsError: a variable breaks its rule; the message names variable, rule and value.
        """
        _refuse_what_is_no_setting(env_file())
        try:
            return cls(_env_file=env_file())
        except ValidationError as error:
            raise SettingsError(
                "; ".join(sentence_of(item, cls.model_fields) for item in error.errors(include_url=False))
            ) from None


class SettingsWithoutDatabase(Settings):
    """The settings of a process that asks no PostgreSQL, as beat: nothing is loaded to read what they say of it."""

    @field_validator("database_url", "database_listen_url")
    @classmethod
    def _postgresql_only(cls, value: str, info: ValidationInfo) -> str:  # noqa: ARG003 - it takes the other's place
        return value


def env_file() -> str | None:
    """The file that settings are read from beside the environment; None when there is to be none."""
    return os.environ.get("DJPS_ENV_FILE", ".env") or None


def _refuse_what_is_no_setting(file: str | None) -> None:
    """Looks for lines of an env file that name nothing: what reads it would only warn, and take the defaults.

    Raises:
        SettingsError: there is one; the message names file and line, and not what it says, which may be a secret.
    """
    if file is None or not Path(file).is_file():
        return
    with Path(file).open(encoding="utf-8") as opened:
        for binding in parse_stream(opened):
            if binding.error:
                text = binding.original.string
                line = binding.original.line + text[: len(text) - len(text.lstrip())].count("\n")
                raise SettingsError(f"{file}, line {line}: must be NAME=value, with quotes in pairs")


@lru_cache(maxsize=1)
def current() -> Settings:
    """The settings this process started with; what they name no server for is the running stack's."""
    return _chosen[0] if _chosen else reaching_stack(Settings.load())


#: The settings that a test of handlers has chosen, in place of the environment's, which are its application's own.
_chosen: list[Settings] = []


def use(settings: Settings) -> None:
    """Makes these the settings of this process, whatever its environment says."""
    _chosen[:] = [settings]
    current.cache_clear()


def reaching_stack(settings: Settings) -> Settings:
    """Settings that reach the servers of `ops up`, where they name none themselves.

    DATABASE_URL and REDIS_URL come first, then POSTGRES_PORT and REDIS_PORT where they are not the running stack's, then what that
    says of itself in its data folder, then the defaults. So `flask --app wsgi` in any shell looks at the stack of this clone.
    """
    note = read_note(settings.data_dir)
    places = note.get("places") or {}
    found = {}
    for name, port, by_default in (
        ("database_url", "postgres_port", 5432),
        ("redis_url", "redis_port", 6379),
    ):
        if name in settings.model_fields_set:
            continue
        given = getattr(settings, port)
        if port in settings.model_fields_set and given != places.get(port):
            found[name] = getattr(settings, name).replace(f":{by_default}/", f":{given}/")
        elif isinstance(note.get(name), str):
            found[name] = note[name]
            if name == "redis_url" and "redis_prefix" not in settings.model_fields_set:
                found["redis_prefix"] = str(note.get("redis_prefix", ""))
    return settings.model_copy(update=found)
