"""Writes the worker's heartbeat to Redis: who lives, what it does, and since when it has taken no message."""

from __future__ import annotations

import json
import logging
import os

from redis.exceptions import RedisError

from tasks.presence.context import WorkerContext
from tasks.presence.running import busy_children, messages_received, running_jobs
from webapp.infra.background import Step
from webapp.infra.broker import heartbeats

logger = logging.getLogger(__name__)

#: Seconds before a heartbeat that could not be written is tried again.
BEAT_AGAIN = 2.0


class Heartbeat:
    """The worker's heartbeat.

    Args:
        worker: whose it is.
    """

    def __init__(self, worker: WorkerContext) -> None:
        self._worker = worker
        self._received = 0
        self._claimed_at = worker.clock()

    def steps(self) -> list[Step]:
        """Notes messages before it says since when there were none."""
        return [
            Step("claims", self.note_messages),
            Step("heartbeat", self.write, period=self._worker.heartbeat_every, again=BEAT_AGAIN),
        ]

    def note_messages(self) -> None:
        """Remembers when the worker last took a message."""
        received = messages_received()
        if received != self._received:
            self._received, self._claimed_at = received, self._worker.clock()

    def write(self) -> None:
        """Writes the heartbeat; Redis may have lost the key when it is back, so a failure is made up for soon."""
        worker = self._worker
        described = json.dumps(
            {
                "role": worker.role,
                "pid": os.getpid(),
                "queues": worker.queues,
                "children": worker.capacity,
                "running": len(running_jobs()),
                "busy": len(busy_children()),
                "idle": round(worker.clock() - self._claimed_at, 1),
                "knows": heartbeats.KNOWN,
            }
        )
        heartbeats.beat(worker.redis, worker.name, worker.settings.worker_heartbeat_ttl, described)

    def take_back(self) -> None:
        """Says that the worker is gone."""
        try:
            heartbeats.leave(self._worker.redis, self._worker.name)
        except RedisError:
            logger.warning("heartbeat could not be taken back")
