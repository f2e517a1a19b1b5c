"""A peer's side: what its processes share, in the peer's own environment. Standard library only.

Each process that executes jobs counts them in a small mapped file of its own, which costs every peer the
same fraction of a microsecond. The client end understands three commands: `one N`, `bulk N` and `idle N`.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, Protocol

DATABASE = os.environ.get("BENCH_DATABASE", "")
REDIS = os.environ.get("BENCH_REDIS", "")
COUNTERS = Path(os.environ.get("BENCH_COUNTERS", "."))

#: Executed jobs, and when the first and the last of them were, on `time.time()`'s clock.
RECORD = struct.Struct("<Qdd")
#: Most jobs of one bulk call.
BULK_CHUNK = 5_000
#: Seconds between two jobs that are sent to an idle system.
IDLE_PAUSE = 0.04

_lock = threading.Lock()


class _Slot:
    """This process's counter."""

    def __init__(self) -> None:
        self.pid = 0
        self.count = 0
        self.first = 0.0
        self.map: mmap.mmap | None = None

    def open(self) -> mmap.mmap:
        """The counter's file; a forked child makes its own."""
        self.pid, self.count, self.first = os.getpid(), 0, time.time()
        path = COUNTERS / f"count-{self.pid}"
        path.write_bytes(bytes(RECORD.size))
        with path.open("r+b") as file:
            self.map = mmap.mmap(file.fileno(), RECORD.size)
        return self.map


_slot = _Slot()


def hit(sent: float = 0.0) -> None:
    """Counts one executed job.

    Args:
        sent: when it was sent; 0 when no one asks how long it waited.
    """
    now = time.time()
    with _lock:
        found = _slot.map if _slot.map is not None and _slot.pid == os.getpid() else _slot.open()
        _slot.count += 1
        RECORD.pack_into(found, 0, _slot.count, _slot.first, now)
    if sent:
        with (COUNTERS / f"waits-{os.getpid()}").open("a") as file:
            file.write(f"{now - sent}\n")


class Client(Protocol):
    """The end that sends jobs."""

    async def one(self, sent: float) -> None:
        """Sends one job; `sent` is its argument."""

    async def bulk(self, count: int) -> None:
        """Sends many at once, where the peer offers that."""


def main(
    client: Callable[[], Awaitable[Client]],
    run: Callable[[Coroutine[Any, Any, None]], None],
    *,
    setup: Callable[[], Awaitable[None]] | None = None,
    work: Callable[[int], Awaitable[None]] | None = None,
) -> None:
    """Does what the command line says, and prints what was measured as JSON.

    Args:
        run: `asyncio.run`, or what the peer uses in its place.
        setup: makes the peer's tables, for `setup`.
        work: runs the peer's worker until it is stopped, for `work N`.
    """
    command, number = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 0  # noqa: PLR2004
    run(_do(command, number, client, setup, work))


async def _do(
    command: str,
    number: int,
    client: Callable[[], Awaitable[Client]],
    setup: Callable[[], Awaitable[None]] | None,
    work: Callable[[int], Awaitable[None]] | None,
) -> None:
    if command == "setup" and setup is not None:
        await setup()
    elif command == "work" and work is not None:
        await work(number)
    else:
        peer = await client()
        began = time.perf_counter()
        if command == "one":
            for _ in range(number):
                await peer.one(0.0)
        elif command == "bulk":
            for start in range(0, number, BULK_CHUNK):
                await peer.bulk(min(BULK_CHUNK, number - start))
        else:
            for _ in range(number):
                await peer.one(time.time())
                time.sleep(IDLE_PAUSE)  # noqa: ASYNC251 - nothing else runs here
        print(json.dumps({"seconds": time.perf_counter() - began}))
