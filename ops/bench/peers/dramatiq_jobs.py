"""Dramatiq's no-op job and its client; `dramatiq dramatiq_jobs` is the worker."""
# mypy: ignore-errors
# It runs in the environment of the peers, whose packages the project does not have.

from __future__ import annotations

import asyncio

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from side import REDIS, hit, main

dramatiq.set_broker(RedisBroker(url=REDIS))


@dramatiq.actor(max_retries=0)
def noop(sent: float) -> None:
    """Does nothing but count."""
    hit(sent)


class Client:
    """Sends jobs; Dramatiq offers no bulk."""

    async def one(self, sent: float) -> None:
        """Sends one."""
        noop.send(sent)


async def client() -> Client:
    """Connects at the first job."""
    return Client()


if __name__ == "__main__":
    main(client, asyncio.run)
