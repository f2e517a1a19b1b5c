"""The heap of a process that forks children: what it has loaded is shared with them, and not searched for garbage again."""

from __future__ import annotations

import ctypes
import gc

#: Objects made since the last look for garbage before the next one. Python's 700 are a few requests; a batch of ten thousand
#: jobs was searched hundreds of times, a fifth of the time it took.
YOUNG = 10_000
#: glibc's; other C libraries have none.
_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)


def share() -> None:
    """Keeps what is loaded by now; the collector would only copy its pages into every child.

    To be called in the parent, before it forks; its children inherit this.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG)


def give_back() -> None:
    """Gives memory that is free to the kernel; the C library would keep what a large request took."""
    if _trim is not None:
        _trim(0)
