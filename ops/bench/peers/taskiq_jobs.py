"""Taskiq's no-op task over a Redis list, and its client; `taskiq worker taskiq_jobs:broker` is the worker."""
# mypy: ignore-errors
# It runs in the environment of the peers, whose packages the project does not have.

from __future__ import annotations

import asyncio

from side import REDIS, hit, main
from taskiq_redis import ListQueueBroker

broker = ListQueueBroker(REDIS)


# Run as a script, its tasks must have the name that the worker's import gives them.
@broker.task(task_name="taskiq_jobs:noop")
async def noop(sent: float) -> None:
    """Does nothing but count."""
    hit(sent)


class Client:
    """Sends tasks; taskiq offers no bulk."""

    async def one(self, sent: float) -> None:
        """Sends one."""
        await noop.kiq(sent)


async def client() -> Client:
    """Connects."""
    await broker.startup()
    return Client()


if __name__ == "__main__":
    main(client, asyncio.run)
