"""RQ's no-op job and its client; `rq worker` is the worker."""
# mypy: ignore-errors
# It runs in the environment of the peers, whose packages the project does not have.

from __future__ import annotations

import asyncio

from redis import Redis
from rq import Queue
from side import REDIS, hit, main


def noop(sent: float) -> None:
    """Does nothing but count."""
    hit(sent)


class Client:
    """Sends jobs."""

    def __init__(self) -> None:
        self.queue = Queue(connection=Redis.from_url(REDIS))

    async def one(self, sent: float) -> None:
        """Sends one."""
        self.queue.enqueue("rq_jobs.noop", sent)

    async def bulk(self, count: int) -> None:
        """Sends many in one pipeline."""
        self.queue.enqueue_many([Queue.prepare_data("rq_jobs.noop", args=(0.0,)) for _ in range(count)])


async def client() -> Client:
    """Connects at the first job."""
    return Client()


if __name__ == "__main__":
    main(client, asyncio.run)
