"""What a client asks for and what it is told; what a job gets where nothing was asked. Pure."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import UUID

from webapp.jobs import insert, store
from webapp.jobs.errors import CallbackRefused
from webapp.jobs.handlers import Handler
from webapp.jobs.options import DEFAULT_PRIORITY, NO_OPTIONS, Options, Terms
from webapp.outbound.urls import TargetRefused, callable_url
from webapp.settings import Settings

T = TypeVar("T")

#: How payloads are compared; `json.dumps` would make an encoder each time.
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class Submission:
    """What a client asked for."""

    payload: dict[str, Any]
    idempotency_key: str | None = None
    options: Options = NO_OPTIONS


@dataclass(frozen=True, slots=True)
class Accepted:
    """A job that is stored; `created` is False when its key had been used for the same request before."""

    job: store.JobRow
    created: bool


@dataclass(frozen=True, slots=True)
class Placed:
    """A job of a batch that is stored; `created` is False when its key had been used for the same request before."""

    id: UUID
    created: bool


@dataclass(frozen=True, slots=True)
class Limits:
    """What a job gets when its handler does not say.

    Args:
        max_retries: retries after the first attempt.
        timeout: seconds an attempt may take.
        default_handler: runs jobs whose payload names no handler; empty: they are refused.
        only_known: whether a payload must name a known handler where it names one; else the default runs it.
        key_ttl: seconds an idempotency key lives.
        retention_days: days a final job is kept; 0: for ever.
    """

    max_retries: int
    timeout: float
    default_handler: str
    key_ttl: float = insert.KEY_TTL
    only_known: bool = False
    retention_days: int = 0

    @classmethod
    def of(cls, settings: Settings) -> Limits:
        """Those that the settings say."""
        return cls(
            settings.max_job_retries,
            settings.job_timeout,
            settings.default_handler,
            settings.idempotency_ttl,
            only_known=bool(settings.handler_modules),
            retention_days=settings.retention_days,
        )


def check_callback(url: str) -> None:
    """Judges a callback's URL by the settings of today.

    Raises:
        CallbackRefused: they do not allow it to be called.
    """
    try:
        callable_url(url)
    except TargetRefused as refused:
        raise CallbackRefused(url, str(refused)) from None


def first_given(asked: T | None, of_handler: T | None, default: T) -> T:
    """What the client asked for, else what its handler says, else the setting."""
    if asked is not None:
        return asked
    return default if of_handler is None else of_handler


def terms_of(found: Handler, asked: Options) -> Terms:
    """What the client asked for, and the handler's defaults where it did not."""
    backoff = asked.backoff if asked.backoff is not None else found.backoff
    return Terms(
        priority=first_given(asked.priority, found.priority, DEFAULT_PRIORITY),
        run_at=asked.run_at,
        delay=asked.delay or 0.0,
        expires_at=asked.expires_at,
        expires_in=found.expires_in,
        backoff=None if backoff is None else json.dumps(backoff),
        tags=tuple(dict.fromkeys((*asked.tags, *found.tags))),
        callback_url=asked.callback_url,
    )


def fingerprint(submission: Submission) -> bytes:
    """SHA-256 of the request in a canonical form: the order of keys and the white space do not count."""
    canonical = _CANONICAL.encode(submission.payload)
    if submission.options is not NO_OPTIONS:
        # JSON text has no bare line feed, so no payload alone reads like a payload with options.
        canonical += "\n" + submission.options.canonical()
    return hashlib.sha256(canonical.encode()).digest()
