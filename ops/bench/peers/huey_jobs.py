"""Huey's no-op task and its client; `huey_consumer huey_jobs.huey` is the worker."""
# mypy: ignore-errors
# It runs in the environment of the peers, whose packages the project does not have.

from __future__ import annotations

import asyncio
import os

from huey import RedisHuey
from side import REDIS, hit, main

huey = RedisHuey("bench", url=REDIS, results=os.environ.get("BENCH_RESULTS", "1") == "1")


@huey.task(name="noop")
def noop(sent: float) -> None:
    """Does nothing but count."""
    hit(sent)


class Client:
    """Sends tasks; Huey offers no bulk."""

    async def one(self, sent: float) -> None:
        """Sends one."""
        noop(sent)


async def client() -> Client:
    """Connects at the first task."""
    return Client()


if __name__ == "__main__":
    # Registered names carry the module, which a script has not.
    import huey_jobs

    noop = huey_jobs.noop
    main(client, asyncio.run)
