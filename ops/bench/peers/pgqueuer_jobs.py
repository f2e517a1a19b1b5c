"""PgQueuer's no-op job, its client and its worker. Its API is used: `pgq run` fails with the newest typer."""
# mypy: ignore-errors
# It runs in the environment of the peers, whose packages the project does not have.

from __future__ import annotations

import asyncpg
import uvloop
from pgqueuer import PgQueuer
from pgqueuer.queries import Queries
from side import DATABASE, hit, main


class Client:
    """Sends jobs on one connection."""

    def __init__(self, queries: Queries) -> None:
        self.queries = queries

    async def one(self, sent: float) -> None:
        """Sends one."""
        await self.queries.enqueue("noop", str(sent).encode())

    async def bulk(self, count: int) -> None:
        """Sends many in one statement."""
        await self.queries.enqueue(["noop"] * count, [b"0"] * count, [0] * count)


async def client() -> Client:
    """Connects."""
    return Client(Queries.from_asyncpg_connection(await asyncpg.connect(DATABASE)))


async def setup() -> None:
    """Makes the tables."""
    connection = await asyncpg.connect(DATABASE)
    await Queries.from_asyncpg_connection(connection).install()
    await connection.close()


async def work(batch: int) -> None:
    """Executes jobs until it is killed."""
    peer = PgQueuer.from_asyncpg_connection(await asyncpg.connect(DATABASE))

    @peer.entrypoint("noop")
    async def noop(job: object) -> None:
        hit(float(job.payload))

    await peer.qm.run(batch_size=batch)


if __name__ == "__main__":
    main(client, uvloop.run, setup=setup, work=work)
