"""A process that forks children: what it shares with them, and when it may fork.

Memory: what is loaded before the fork is shared with the children, and not searched for garbage again.

Locks: a fork copies every lock as it is, and of the threads only the one that forks. A lock that another thread holds at that
moment stays locked in the child for ever. Seen with psycopg2-binary 2.9.12: a worker's child was forked while its parent
connected to PostgreSQL in another thread. It took a message, hung in its own first `connect`, and kept its slot until the
message's hard limit. (POSIX, `fork`: the child may only call async-signal-safe functions until it calls `exec`.)
"""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

#: Objects made since the last look for garbage before the next one. Python's 700 are a few requests; a batch of ten thousand
#: jobs was searched hundreds of times, a fifth of the time it took.
YOUNG = 10_000
#: Loaded before any fork: a forked child should load nothing.
_LIBC = ctypes.CDLL(None)
#: glibc's; other C libraries have none.
_trim = getattr(_LIBC, "malloc_trim", None)
#: glibc's `mallopt`, and its parameter for the size from which an allocation is a mapping of its own.
_mallopt, _M_MMAP_THRESHOLD = getattr(_LIBC, "mallopt", None), -3
#: That size, bytes: glibc's own at the start, which it raises with each such allocation that is freed, up to 32 MiB. What a batch of
#: ten thousand jobs needed then stayed in the heap of its thread, 26 MiB, for `malloc_trim` as well.
OWN_MAPPING = 128 * 1024
#: Linux: the signal a process gets when its parent dies.
_PR_SET_PDEATHSIG = 1


def share_memory() -> None:
    """Keeps what is loaded by now; the collector would only copy its pages into every child.

    To be called in the parent, before it forks; its children inherit this. A process that forks none is spared the search.
    """
    if _mallopt is not None:
        _mallopt(_M_MMAP_THRESHOLD, OWN_MAPPING)
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG)


def give_memory_back() -> None:
    """Gives memory that is free to the kernel; Python and the C library would keep what a large request took."""
    # It empties Python's lists of freed tuples as well, each of which keeps its arena: 4 MiB after batches, in a millisecond.
    gc.collect()
    if _trim is not None:
        _trim(0)


def end_with_parent(how: str = "SIGKILL") -> None:
    """Has the kernel send this process a signal when its parent dies; elsewhere than on Linux nothing is asked for.

    billiard's own has cffi parse a declaration of C in every child, wherever cffi is installed: 2 MiB for one system call.

    Args:
        how: the signal's name.
    """
    prctl = getattr(_LIBC, "prctl", None)
    if prctl is not None:
        prctl(_PR_SET_PDEATHSIG, int(signal.Signals[how]))


_guard = threading.Lock()


class _Local(threading.local):
    """Whether this thread holds the guard, whether it keeps it while it waits, and whether it took it for a fork."""

    holds = False
    keeps = False
    took = False


_local = _Local()


def _before() -> None:
    # A thread that forks inside its own block has no other thread to wait for.
    if not _local.holds:
        _guard.acquire()
        _local.took = True


def _after() -> None:
    # A signal's handler that raised in the wait for the guard has left it to the thread that holds it.
    if _local.took:
        _local.took = False
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
