"""Celery's no-op task without results, and its client; `celery -A celery_jobs worker` is the worker."""
# mypy: ignore-errors
# It runs in the environment of the peers, whose packages the project does not have.

from __future__ import annotations

import asyncio
import os

from celery import Celery
from side import REDIS, hit, main

app = Celery("celery_jobs", broker=REDIS)
app.conf.update(
    result_backend=None,
    task_ignore_result=True,
    worker_prefetch_multiplier=int(os.environ.get("BENCH_PREFETCH", "4")),
    broker_connection_retry_on_startup=True,
)


@app.task(name="noop")
def noop(sent: float) -> None:
    """Does nothing but count."""
    hit(sent)


class Client:
    """Sends tasks; Celery offers no bulk."""

    async def one(self, sent: float) -> None:
        """Sends one."""
        noop.delay(sent)


async def client() -> Client:
    """Connects at the first task."""
    return Client()


if __name__ == "__main__":
    main(client, asyncio.run)
