"""Waiting for PostgreSQL, never for long: a server that says nothing must not hold a request.

libpq waits for an answer as long as TCP keeps the connection, and `statement_timeout` is the server's own clock:
neither helps against a server that is stopped, or a network that swallows packets. psycopg2 lets a process wait
in its own way (`set_wait_callback`); ours gives up when the time of the work at hand is over. psycopg2 closes the
connection then, so a late answer can never be taken for another statement's.

After a wait in vain others are refused for a moment instead of waiting as well, and then one of them tries. Where another
connection was answered meanwhile, the server is there: a slow statement shuts out its sender and no others.
"""

from __future__ import annotations

import select
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg2
from psycopg2 import extensions

from webapp.infra import prefork

#: How long every request is refused after a wait in vain, seconds.
PAUSE = 0.5
#: A shorter wait in vain says nothing of the server: most of the work's time had gone before, seconds.
LEAST_WAIT = 0.25

_EVENTS = {extensions.POLL_READ: select.POLLIN, extensions.POLL_WRITE: select.POLLOUT}


class Away(psycopg2.OperationalError):
    """PostgreSQL did not answer in time."""


class _Gate:
    """Closed for a moment after a wait in vain; then one at a time may try whether the server answers."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._closed_until = 0.0
        self._shut = False
        self._answered_at = 0.0

    def pass_through(self, budget: float) -> None:
        """Lets a wait begin, or refuses it.

        Raises:
            Away: the server did not answer a moment ago, or someone else is trying right now.
        """
        if not self._shut:
            return
        with self._lock:
            now = time.monotonic()
            if self._shut and now < self._closed_until:
                raise Away("PostgreSQL did not answer a moment ago")
            self._closed_until = now + budget

    def shut(self, began: float) -> None:
        """Closes it after a wait in vain, unless that says nothing of the server but that one statement was slow.

        Args:
            began: when the wait began, on the monotonic clock.
        """
        with self._lock:
            now = time.monotonic()
            if self._answered_at > began or now - began < LEAST_WAIT:
                return
            self._shut = True
            self._closed_until = now + PAUSE

    def open(self) -> None:
        """Notes that the server answers."""
        self._answered_at = time.monotonic()
        self._shut = False


class _NoGate(_Gate):
    """That of a server whose user remembers by itself that it is away."""

    def pass_through(self, budget: float) -> None:
        """Lets every wait begin."""

    def shut(self, began: float) -> None:
        """Stays open."""

    def open(self) -> None:
        """Notes nothing."""


_gate, _no_gate = _Gate(), _NoGate()
_local = threading.local()


def install() -> None:
    """Makes every psycopg2 connection of this process wait in this way."""
    extensions.set_wait_callback(_wait)


def uninstall() -> None:
    """Makes them wait as libpq does again; a forked child that runs jobs has all the time of its lease."""
    extensions.set_wait_callback(None)


def tell_apart() -> None:
    """From here on a wait inside a block of `apart` says nothing of the primary, and its gate is not asked.

    A process with one server never asks which one it waits for.
    """
    extensions.set_wait_callback(_wait_for_either)


def bound(seconds: float) -> None:
    """From now on this thread waits for PostgreSQL for this long, all waits together."""
    _local.deadline = time.monotonic() + seconds


def unbound() -> None:
    """This thread waits as long as it takes again."""
    _local.deadline = None


def left() -> float | None:
    """Seconds that this thread may still wait, below zero once its time is over; None: as long as it takes."""
    deadline: float | None = getattr(_local, "deadline", None)
    return None if deadline is None else deadline - time.monotonic()


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Bounds the waits of a block, all together; around it the bound is what it was."""
    before = getattr(_local, "deadline", None)
    bound(seconds)
    try:
        yield
    finally:
        _local.deadline = before


@contextmanager
def apart(seconds: float) -> Iterator[None]:
    """Bounds the waits of a block with another server than the primary, which has as much time left afterwards as before."""
    with _beside(seconds, is_apart=True):
        yield


@contextmanager
def rejoined(seconds: float) -> Iterator[None]:
    """Bounds the waits of a block with the primary, inside one of `apart`."""
    with _beside(seconds, is_apart=False):
        yield


@contextmanager
def _beside(seconds: float, *, is_apart: bool) -> Iterator[None]:
    before: float | None = getattr(_local, "deadline", None)
    was_apart = getattr(_local, "apart", False)
    began = time.monotonic()
    _local.deadline, _local.apart = began + seconds, is_apart
    try:
        yield
    finally:
        _local.apart = was_apart
        _local.deadline = None if before is None else before + (time.monotonic() - began)


@contextmanager
def share(of: int) -> Iterator[None]:
    """Bounds the waits of a block, which asks one of several hosts, to its share of the time that is left.

    Unless it is the last of them, a wait in vain says nothing of the others, and others are not refused for it.

    Args:
        of: hosts that are still to be asked, this one among them.
    """
    before: float | None = getattr(_local, "deadline", None)
    if before is None or of <= 1:
        yield
        return
    now = time.monotonic()
    _local.deadline, _local.one_of_several = now + max(0.0, before - now) / of, True
    try:
        yield
    finally:
        _local.deadline, _local.one_of_several = before, False


@contextmanager
def one_after_the_other() -> Iterator[None]:
    """A block in which the hosts of one database are asked: a wait in vain for the last of them counts from the first one on.

    Each has only a share of the time, which alone may be too short to say anything.
    """
    _local.asked_since = time.monotonic()
    try:
        yield
    finally:
        _local.asked_since = None


def _wait_for_either(connection: Any) -> None:
    _wait(connection, _no_gate if getattr(_local, "apart", False) else _gate)


def _wait(connection: Any, gate: _Gate = _gate) -> None:
    deadline: float | None = getattr(_local, "deadline", None)
    began = time.monotonic()
    if deadline is not None:
        gate.pass_through(max(0.0, deadline - time.monotonic()))
    while (state := connection.poll()) != extensions.POLL_OK:
        poller = select.poll()
        poller.register(connection.fileno(), _EVENTS[state])
        left = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
        with prefork.let_through():
            has_something = poller.poll(left)
        if not has_something:
            if not getattr(_local, "one_of_several", False):
                gate.shut(getattr(_local, "asked_since", None) or began)
            raise Away("PostgreSQL did not answer in time")
    gate.open()
