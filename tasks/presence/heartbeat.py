"""Writes the worker's heartbeat to Redis: who lives, what it does, and since when it has taken no message."""

from __future__ import annotations

import json
import logging
import os
import time

from redis.exceptions import RedisError

from tasks.presence.context import WorkerContext
from tasks.presence.running import busy_children, messages_received
from tasks.processes import process_memory, run_table
from tasks.processes.process_group import is_child
from webapp import VERSION
from webapp.infra.background import Step
from webapp.infra.broker import heartbeats

logger = logging.getLogger(__name__)

#: Seconds before a heartbeat that could not be written is tried again.
BEAT_AGAIN = 2.0
#: Seconds between two looks at how much memory the worker takes.
MEASURED_EVERY = 60.0


class Heartbeat:
    """The worker's heartbeat.

    Args:
        worker: whose it is.
    """

    def __init__(self, worker: WorkerContext) -> None:
        self._worker = worker
        self._received = 0
        self._claimed_at = self._began_at = worker.clock()
        #: What the worker and its processes take, and when that was looked up.
        self._measured: tuple[float, int] | None = None

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
        now = worker.clock()
        table = run_table.current()
        runs = [(run, pid) for pid, run in table.running() if is_child(pid)]
        # Those that have run longest are the ones to look at.
        runs.sort(key=lambda one: one[0].began_at)
        described = json.dumps(
            {
                "role": worker.role,
                "pid": os.getpid(),
                "queues": worker.queues,
                "children": worker.capacity,
                "running": len({run.job_id for run, _ in runs}),
                "busy": len(busy_children()),
                "idle": round(now - self._claimed_at, 1),
                "version": VERSION,
                "up": round(now - self._began_at, 1),
                "memory": self._memory(),
                "runs": [
                    [pid, str(run.job_id), run.attempt, round(max(0.0, time.monotonic() - run.began_at), 1)]
                    for run, pid in runs[: heartbeats.MOST_RUNS]
                ],
                "knows": heartbeats.KNOWN,
            }
        )
        heartbeats.beat(worker.redis, worker.name, worker.settings.worker_heartbeat_ttl, described)

    def _memory(self) -> int:
        """What this process and its children take, bytes; the kernel adds it up page by page, so once a minute will do."""
        now = self._worker.clock()
        if self._measured is None or now - self._measured[0] >= MEASURED_EVERY:
            self._measured = now, process_memory.of_family(os.getpid())
        return self._measured[1]

    def take_back(self) -> None:
        """Says that the worker is gone."""
        try:
            heartbeats.leave(self._worker.redis, self._worker.name)
        except RedisError:
            logger.warning("heartbeat could not be taken back")
