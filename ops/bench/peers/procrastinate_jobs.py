"""Procrastinate's no-op task, its client and its worker."""
# mypy: ignore-errors
# It runs in the environment of the peers, whose packages the project does not have.

from __future__ import annotations

import asyncio

import procrastinate
from side import DATABASE, hit, main

app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=DATABASE))


@app.task(name="noop")
async def noop(sent: float) -> None:
    """Does nothing but count."""
    hit(sent)


class Client:
    """Sends tasks through a pool."""

    async def one(self, sent: float) -> None:
        """Sends one."""
        await noop.defer_async(sent=sent)

    async def bulk(self, count: int) -> None:
        """Sends many in one statement."""
        await noop.batch_defer_async(*({"sent": 0.0} for _ in range(count)))


async def client() -> Client:
    """Connects."""
    await app.open_async()
    return Client()


async def setup() -> None:
    """Makes the tables."""
    async with app.open_async():
        await app.schema_manager.apply_schema_async()


async def work(concurrency: int) -> None:
    """Executes up to `concurrency` jobs at a time until it is killed."""
    async with app.open_async():
        await app.run_worker_async(concurrency=concurrency, install_signal_handlers=False)


if __name__ == "__main__":
    main(client, asyncio.run, setup=setup, work=work)
