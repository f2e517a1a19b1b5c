"""SAQ's no-op job and its client; `saq saq_jobs.settings` is the worker."""
# mypy: ignore-errors
# It runs in the environment of the peers, whose packages the project does not have.

from __future__ import annotations

import asyncio
import os

from saq import Queue
from side import REDIS, hit, main

queue = Queue.from_url(REDIS)


async def noop(_context: object, *, sent: float) -> None:
    """Does nothing but count."""
    hit(sent)


settings = {
    "queue": queue,
    "functions": [("noop", noop)],
    "concurrency": int(os.environ.get("BENCH_CONCURRENCY", "10")),
}


class Client:
    """Sends jobs one by one."""

    async def one(self, sent: float) -> None:
        """Sends one."""
        await queue.enqueue("noop", sent=sent)


async def client() -> Client:
    """Connects."""
    await queue.connect()
    return Client()


if __name__ == "__main__":
    main(client, asyncio.run)
