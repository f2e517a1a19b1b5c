"""Oban's no-op job, its client and its worker."""
# mypy: ignore-errors
# It runs in the environment of the peers, whose packages the project does not have.

from __future__ import annotations

import asyncio

import uvloop
from oban import Oban, worker
from oban.schema import install
from side import DATABASE, hit, main


@worker(queue="default", max_attempts=1)
class Noop:
    """Does nothing but count."""

    async def process(self, job: object) -> None:
        """Runs one job."""
        hit(job.args["sent"])


class Client:
    """Sends jobs through an instance without queues."""

    def __init__(self, oban: Oban) -> None:
        self.oban = oban

    async def one(self, sent: float) -> None:
        """Sends one."""
        await self.oban.enqueue(Noop.new({"sent": sent}))

    async def bulk(self, count: int) -> None:
        """Sends many in one statement."""
        await self.oban.enqueue_many([Noop.new({"sent": 0}) for _ in range(count)])


async def client() -> Client:
    """Connects."""
    oban = Oban(pool=await Oban.create_pool(dsn=DATABASE))
    await oban.start()
    return Client(oban)


async def setup() -> None:
    """Makes the tables."""
    pool = await Oban.create_pool(dsn=DATABASE)
    await install(pool)
    await pool.close()


async def work(limit: int) -> None:
    """Executes up to `limit` jobs at a time until it is killed."""
    async with Oban(pool=await Oban.create_pool(dsn=DATABASE), queues={"default": limit}):
        await asyncio.Event().wait()


if __name__ == "__main__":
    main(client, uvloop.run, setup=setup, work=work)
