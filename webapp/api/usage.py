"""What a request uses of its caller's quotas. A caller without quotas, and one of whom no key is asked, pays a look at one attribute."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, cast

from flask import Flask, current_app, g, request

from webapp.access.errors import QuotaExceeded, Whose
from webapp.access.model import ANYONE, Caller
from webapp.access.queued import QueuedLooks
from webapp.access.windows import TIMEOUT, Windows
from webapp.infra.broker import heartbeats

if TYPE_CHECKING:
    from sqlalchemy import Engine

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
        #: How many wait, by the name of their key or tenant.
        self._waiting: dict[str, int] = {}

    def spend(self, caller: Caller, quota: str, cost: int, most: int, *, whose: Whose = Whose.KEY) -> None:
        """Uses something of a quota for each minute.

        Raises:
            QuotaExceeded: it is used up.
        """
        name = caller.key if whose is Whose.KEY else f"tenant/{caller.tenant.id}"
        verdict = self._windows.spend(f"{quota}/{name}", cost, most)
        if not verdict.is_taken:
            raise QuotaExceeded(quota, most, verdict.used, verdict.wait, whose=whose)

    def wait(self, name: str, most: int, *, whose: Whose = Whose.KEY) -> None:
        """Counts one that waits; `leave` takes it back.

        Raises:
            QuotaExceeded: as many wait as may.
        """
        with self._lock:
            if (used := self._waiting.get(name, 0)) >= most:
                raise QuotaExceeded("max_waiters", most, used, RETRY_AFTER_WAITERS, whose=whose)
            self._waiting[name] = used + 1

    def leave(self, name: str) -> None:
        """Counts one less that waits."""
        with self._lock:
            self._waiting[name] -= 1
            if not self._waiting[name]:
                del self._waiting[name]


def init_app(app: Flask, settings: Settings, engine: Engine) -> None:
    """Gives the application what counts the usage of keys and tenants."""
    app.extensions["queued_looks"] = QueuedLooks(engine)
    app.extensions["usage"] = Usage(Windows(heartbeats.connect(settings.redis_url, TIMEOUT)))


def judge(caller: Caller) -> None:
    """Counts a request that changes nothing, and bounds the body of one that has any.

    Raises:
        QuotaExceeded: the caller has read as much as they may, or their tenant has.
    """
    if _least("max_payload_bytes") is not None:
        request.max_content_length = largest_body()
    if request.method in _READS:
        _spend(caller, "read_per_minute", 1)


def _spend(caller: Caller, quota: str, cost: int) -> None:
    """Uses something of a quota of the key, and of that of its tenant; what the second refuses is used of the first."""
    for quotas, whose in ((caller.quotas, Whose.KEY), (caller.of_tenant, Whose.TENANT)):
        most: int | None = getattr(quotas, quota, None)
        if most is not None:
            _usage().spend(caller, quota, cost, most, whose=whose)


def charge(jobs: int) -> None:
    """Counts jobs that the caller submits.

    Raises:
        QuotaExceeded: they have submitted as many as they may.
    """
    caller: Caller = g.get("caller", ANYONE)
    if caller.quotas is not None or caller.of_tenant is not None:
        _spend(caller, "submit_per_minute", jobs)
    most = caller.of_tenant.max_queued if caller.of_tenant is not None else None
    if most is not None and caller.reach.is_guest:
        looks: QueuedLooks = current_app.extensions["queued_looks"]
        if (refused := looks.admit(caller.tenant.id, jobs, most)) is not None:
            waiting, seconds = refused
            raise QuotaExceeded(
                "max_queued", most, waiting, None if jobs > most else seconds, whose=Whose.TENANT
            )


def largest_body() -> int:
    """The largest body of one job that the caller may send, bytes."""
    largest: int = current_app.extensions["settings"].max_payload_bytes
    bound = _least("max_payload_bytes")
    return largest if bound is None else min(largest, bound)


def wait() -> Callable[[], None]:
    """Counts the caller among those who wait; returns what is called once, when they wait no more.

    Raises:
        QuotaExceeded: as many of their requests wait in this process as may.
    """
    caller: Caller = g.get("caller", ANYONE)
    left: list[Callable[[], None]] = []
    for quotas, name, whose in (
        (caller.quotas, f"key/{caller.key}", Whose.KEY),
        (caller.of_tenant, f"tenant/{caller.tenant.id}", Whose.TENANT),
    ):
        if quotas is None or quotas.max_waiters is None:
            continue
        try:
            _usage().wait(name, quotas.max_waiters, whose=whose)
        except QuotaExceeded:
            for leave in left:
                leave()
            raise
        left.append(partial(_usage().leave, name))
    return partial(_leave_all, left) if left else _nothing


def _leave_all(left: list[Callable[[], None]]) -> None:
    for leave in left:
        leave()


def _nothing() -> None:
    """What is done when one without such a quota waits no more."""


def _least(quota: str) -> int | None:
    """The least that the caller's key and its tenant may use of something; None: neither is bounded."""
    caller: Caller = g.get("caller", ANYONE)
    if caller.quotas is None and caller.of_tenant is None:
        return None
    found = (getattr(one, quota, None) for one in (caller.quotas, caller.of_tenant))
    return min((one for one in found if one is not None), default=None)


def _usage() -> Usage:
    return cast("Usage", current_app.extensions["usage"])
