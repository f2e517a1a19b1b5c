"""Servers: where PostgreSQL and Redis are and how they are used, and where `ops up` starts some of its own."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import Field, SecretStr, ValidationInfo, field_validator

from webapp.settings.group import Group, items_of
from webapp.settings.server_urls import check_redis_url, check_tls_files

_PREFIX = re.compile(r"(?=.{0,51}\Z)(?:[A-Za-z0-9_.-]+:)*")
#: Parts that begin keys of an installation without a prefix.
TAKEN = frozenset({"djps", "LIMITS", "_kombu"})
#: Shortest key that signs seals, characters.
SHORTEST_KEY = 32


def checked_prefix(prefix: str) -> str:
    """What may stand before the keys of an installation in Redis, when it may.

    No queue's name has a colon, so no key of one installation begins with another's prefix by chance.

    Raises:
        ValueError: it breaks the rule; the message says which.

    Example:
        >>> checked_prefix("shop:"), checked_prefix("")
        ('shop:', '')
    """
    if not _PREFIX.fullmatch(prefix):
        raise ValueError(
            "must be empty, or up to 50 letters, digits and any of _.- with a colon at the end, such as shop:"
        )
    if TAKEN & set(prefix.split(":")):
        raise ValueError(f"must not have {' or '.join(sorted(TAKEN))} as a part")
    return prefix


class ServerSettings(Group):
    """PostgreSQL, Redis, and the stack of `ops up`."""

    database_url: str = Field(
        "postgresql+psycopg2://djps:djps@localhost:5432/djps",
        description="PostgreSQL, the record of every job.",
    )
    database_listen_url: str = Field(
        "",
        description="The same database without a pooler between, for requests that wait; empty: DATABASE_URL.",
    )
    database_read_url: str = Field(
        "",
        description="A read replica of the same database, for lists, totals and searches; empty: DATABASE_URL.",
    )
    read_staleness: float = Field(
        5.0,
        ge=0.1,
        le=3_600,
        description="Seconds that the read replica may be behind; beyond that DATABASE_URL is read.",
    )
    retention_days: int = Field(30, ge=0, le=36_500, description="Days a final job is kept; 0: for ever.")
    audit_days: int = Field(
        400, ge=1, le=36_500, description="Days that acts are on record, at least; months go as a whole."
    )
    audit_key: SecretStr = Field(
        SecretStr(""),
        description="Keys that sign the seals of acts on record, 32 characters or more each, the newest first, comma-separated.",
    )
    idempotency_ttl: float = Field(
        86_400.0, ge=1, le=2_592_000, description="Seconds an idempotency key lives."
    )
    redis_url: str = Field(
        "redis://localhost:6379/0", description="Redis or Valkey: broker, limiter, heartbeats."
    )
    redis_prefix: str = Field(
        "", description="Begins every key in Redis, such as `shop:`; two installations can share it."
    )
    broker_buffer: int = Field(
        1_000, ge=1, le=100_000, description="Most messages of one queue kept in Redis."
    )
    redispatch_after: float = Field(
        60.0, ge=5, le=86_400, description="Seconds before an unclaimed job is sent again."
    )
    worker_heartbeat_ttl: int = Field(
        30, ge=3, le=3_600, description="Seconds a worker's heartbeat key lives."
    )
    data_dir: Path = Field(Path(".djps"), alias="DJPS_DATA_DIR", description="Where `ops up` keeps its data.")
    prometheus_port: int = Field(
        9090,
        ge=1,
        le=65_535,
        description="Port of the Prometheus that `ops up` starts where one is installed.",
    )
    postgres_port: int = Field(
        5432, ge=1, le=65_535, description="Port of the PostgreSQL that `ops up` starts."
    )
    redis_port: int = Field(6379, ge=1, le=65_535, description="Port of the Valkey that `ops up` starts.")
    httpbin_port: int = Field(8099, ge=1, le=65_535, description="Port of the httpbin that `ops up` starts.")

    @field_validator("database_url", "database_listen_url", "database_read_url")
    @classmethod
    def _postgresql_only(cls, value: str, info: ValidationInfo) -> str:
        if not value and info.field_name != "database_url":
            return value
        # With it come SQLAlchemy and the driver, 15 MiB that beat does without (`SettingsWithoutDatabase`).
        from webapp.settings.database_url import read_database_url  # noqa: PLC0415

        url = read_database_url(value)
        check_tls_files(url)
        return url

    @field_validator("audit_key")
    @classmethod
    def _hard_to_guess(cls, value: SecretStr) -> SecretStr:
        for number, key in enumerate(items_of(value.get_secret_value()), 1):
            if len(key) < SHORTEST_KEY:
                raise ValueError(f"key {number} must have at least {SHORTEST_KEY} characters")
        return value

    @field_validator("redis_url")
    @classmethod
    def _redis_only(cls, value: str) -> str:
        check_redis_url(value)
        check_tls_files(value)
        return value

    @field_validator("redis_prefix")
    @classmethod
    def _prefix_of_no_other_key(cls, value: str) -> str:
        return checked_prefix(value)

    @property
    def audit_keys(self) -> tuple[str, ...]:
        """The keys in AUDIT_KEY, the newest first."""
        return items_of(self.audit_key.get_secret_value())
