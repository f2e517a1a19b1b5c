"""Keeps a process from being forked while one of its threads is inside a library with locks of its own.

A fork copies every lock as it is, and of the threads only the one that forks. A lock that another thread holds at that
moment stays locked in the child for ever. Seen with psycopg2-binary 2.9.12: a worker's child was forked while its parent
connected to PostgreSQL in another thread. It took a message, hung in its own first `connect`, and kept its slot until the
message's hard limit. (POSIX, `fork`: the child may only call async-signal-safe functions until it calls `exec`.)
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_guard = threading.Lock()


class _Local(threading.local):
    """Whether this thread holds the guard, and whether it keeps it while it waits."""

    holds = False
    keeps = False


_local = _Local()


def _before() -> None:
    # A thread that forks inside its own block has no other thread to wait for.
    if not _local.holds:
        _guard.acquire()


def _after() -> None:
    if not _local.holds:
        _guard.release()


os.register_at_fork(before=_before, after_in_parent=_after, after_in_child=_after)


@contextmanager
def held_off(*, waits_included: bool = False) -> Iterator[None]:
    """Makes forks of this process wait until the block is done, or waits itself (`let_through`).

    Args:
        waits_included: forks wait for the whole block: a child would inherit what is open in it.
    """
    before = _local.keeps
    _local.keeps = before or waits_included
    try:
        with _held():
            yield
    finally:
        _local.keeps = before


@contextmanager
def _held() -> Iterator[None]:
    if _local.holds:
        yield
        return
    _guard.acquire()
    _local.holds = True
    try:
        yield
    finally:
        _local.holds = False
        _guard.release()


@contextmanager
def let_through() -> Iterator[None]:
    """Lets forks happen in this block although `held_off` is around it: the block only waits, outside every library."""
    if not _local.holds or _local.keeps:
        yield
        return
    _local.holds = False
    _guard.release()
    try:
        yield
    finally:
        _guard.acquire()
        _local.holds = True
