"""Streaq's no-op task and its client; `streaq run streaq_jobs:worker` is the worker."""
# mypy: ignore-errors
# It runs in the environment of the peers, whose packages the project does not have.

from __future__ import annotations

import asyncio
import os

from side import REDIS, hit, main
from streaq import Worker

worker = Worker(redis_url=REDIS, concurrency=int(os.environ.get("BENCH_CONCURRENCY", "16")))


@worker.task(name="noop")
async def noop(sent: float) -> None:
    """Does nothing but count."""
    hit(sent)


class Client:
    """Sends tasks within the worker's context."""

    async def one(self, sent: float) -> None:
        """Sends one."""
        await noop.enqueue(sent)

    async def bulk(self, count: int) -> None:
        """Sends many in one pipeline."""
        await worker.enqueue_many([noop.enqueue(0.0) for _ in range(count)])


async def client() -> Client:
    """Connects."""
    await worker.__aenter__()  # It stays open until the process ends.
    return Client()


if __name__ == "__main__":
    main(client, asyncio.run)
