"""What a request uses of its caller's quotas. A caller without quotas, and one of whom no key is asked, pays a look at one attribute."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, cast

from flask import Flask, current_app, g, request

from webapp.access.errors import QuotaExceeded
from webapp.access.model import ANYONE, Caller
from webapp.access.windows import TIMEOUT, Windows
from webapp.infra.broker import heartbeats

if TYPE_CHECKING:
    from webapp.access.quotas import Quotas
    from webapp.settings import Settings

#: How soon a key may wait again that has as many waiters as it may, seconds.
RETRY_AFTER_WAITERS = 1
#: Methods that change nothing.
_READS = frozenset({"GET", "HEAD"})


class Usage:
    """Counts what keys use.

    Args:
        windows: what they use within a minute.
    """

    def __init__(self, windows: Windows) -> None:
        self._windows = windows
        self._lock = threading.Lock()
        #: How many wait, by the number of their key.
        self._waiting: dict[int, int] = {}

    def spend(self, caller: Caller, quota: str, cost: int, most: int) -> None:
        """Uses something of a quota for each minute.

        Raises:
            QuotaExceeded: it is used up.
        """
        verdict = self._windows.spend(f"{quota}/{caller.key}", cost, most)
        if not verdict.is_taken:
            raise QuotaExceeded(quota, most, verdict.used, verdict.wait)

    def wait(self, key: int, most: int) -> None:
        """Counts one that waits; `leave` takes it back.

        Raises:
            QuotaExceeded: as many wait as may.
        """
        with self._lock:
            if (used := self._waiting.get(key, 0)) >= most:
                raise QuotaExceeded("max_waiters", most, used, RETRY_AFTER_WAITERS)
            self._waiting[key] = used + 1

    def leave(self, key: int) -> None:
        """Counts one less that waits."""
        with self._lock:
            self._waiting[key] -= 1
            if not self._waiting[key]:
                del self._waiting[key]


def init_app(app: Flask, settings: Settings) -> None:
    """Gives the application what counts the usage of keys."""
    app.extensions["usage"] = Usage(Windows(heartbeats.connect(settings.redis_url, TIMEOUT)))


def judge(caller: Caller, quotas: Quotas) -> None:
    """Counts a request that changes nothing, and bounds the body of one that has any.

    Raises:
        QuotaExceeded: the caller has read as much as they may.
    """
    if quotas.max_payload_bytes is not None:
        request.max_content_length = largest_body()
    if quotas.read_per_minute is not None and request.method in _READS:
        _usage().spend(caller, "read_per_minute", 1, quotas.read_per_minute)


def charge(jobs: int) -> None:
    """Counts jobs that the caller submits.

    Raises:
        QuotaExceeded: they have submitted as many as they may.
    """
    quotas = _quotas()
    if quotas is not None and quotas.submit_per_minute is not None:
        _usage().spend(g.caller, "submit_per_minute", jobs, quotas.submit_per_minute)


def largest_body() -> int:
    """The largest body of one job that the caller may send, bytes."""
    largest: int = current_app.extensions["settings"].max_payload_bytes
    quotas = _quotas()
    if quotas is None or quotas.max_payload_bytes is None:
        return largest
    return min(largest, quotas.max_payload_bytes)


def wait() -> Callable[[], None]:
    """Counts the caller among those who wait; returns what is called once, when they wait no more.

    Raises:
        QuotaExceeded: as many of their requests wait in this process as may.
    """
    quotas = _quotas()
    if quotas is None or quotas.max_waiters is None:
        return _nothing
    usage, key = _usage(), g.caller.key
    usage.wait(key, quotas.max_waiters)
    return partial(usage.leave, key)


def _nothing() -> None:
    """What is done when one without such a quota waits no more."""


def _quotas() -> Quotas | None:
    caller: Caller = g.get("caller", ANYONE)
    return caller.quotas


def _usage() -> Usage:
    return cast("Usage", current_app.extensions["usage"])
