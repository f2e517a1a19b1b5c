"""The API: where it listens, with how many threads, and for whom."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator

from webapp.settings.group import LOOPBACK, Group, items_of

_HOST_NAME = re.compile(r"\.?[A-Za-z0-9._-]+|\[?[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*\]?")


#: Submissions that a gunicorn worker answers at once, beside `API_THREADS` other requests: those that come while one is being
#: stored are stored together.
MOST_SUBMISSIONS = 16


class HttpSettings(Group):
    """The API."""

    api_host: str = Field("127.0.0.1", description="Address the API listens on.")
    api_port: int = Field(8000, ge=1, le=65_535, description="Port of the API.")
    api_workers: int = Field(2, ge=1, le=64, description="gunicorn worker processes.")
    api_threads: int = Field(4, ge=1, le=64, description="Threads of each gunicorn worker.")
    max_waiters: int = Field(
        128, ge=1, le=1_000, description="Requests of each gunicorn worker that may wait for a job at once."
    )
    api_auth: Literal["auto", "keys", "open"] = Field(
        "auto",
        description="Who may use the API: keys: holders of keys; open: everybody; auto: holders of keys, and on loopback everybody.",
    )
    bootstrap_key_sha256: str = Field(
        "",
        pattern="^([0-9a-f]{64})?$",
        description="SHA-256 of an admin key that `access bootstrap` makes known; empty: of none.",
    )
    metrics_key_sha256: str = Field(
        "",
        pattern="^([0-9a-f]{64})?$",
        description="SHA-256 of a key with the scope metrics:read alone that `access bootstrap` makes known; empty: of none.",
    )
    rate_limit: str = Field(
        "10 per minute",
        description="Submissions by one key, and without a key by one client address (/64 of IPv6); off (or empty): no limit.",
    )
    trusted_proxies: int = Field(0, ge=0, le=10, description="Proxies whose X-Forwarded-For is believed.")
    trusted_hosts: str = Field(
        "",
        description="Host names requests may be for (.example.com: all below it; *: any), comma-separated; empty: loopback's"
        " where API_HOST is loopback and no proxy is trusted, else any.",
    )

    @field_validator("rate_limit")
    @classmethod
    def _limits_notation(cls, value: str) -> str:
        if value.strip().lower() in {"", "off", "none"}:
            return ""
        if value == cls.model_fields["rate_limit"].default:
            # That is right, and 55 modules are spared where no one is limited.
            return value
        from limits import parse_many  # noqa: PLC0415

        parse_many(value)
        return value

    @field_validator("trusted_hosts")
    @classmethod
    def _host_names(cls, value: str) -> str:
        for name in items_of(value):
            if name != "*" and not _HOST_NAME.fullmatch(name):
                raise ValueError(
                    f"must be host names or addresses without a port, or *; {name[:80]!r} is neither"
                )
        return value

    @property
    def is_on_loopback(self) -> bool:
        """True if only this host reaches the API, as far as settings say: a proxy that is trusted lets others in."""
        return self.api_host in LOOPBACK and not self.trusted_proxies

    @property
    def hosts_served(self) -> tuple[str, ...]:
        """The names that requests may be for, in lower case; none when any will do."""
        names = tuple(name.strip("[]").lower() for name in items_of(self.trusted_hosts))
        if not names and self.is_on_loopback:
            return LOOPBACK
        return () if "*" in names else names
