"""Beat's scheduler: Celery's own, with a bound on waiting ticks, and a liveness file.

A tick that no worker takes is worth nothing: when the maintenance worker is away, ticks would pile up in Redis
and be worked off one by one at its return. An expiry would drop them by comparing two machines' clocks, so a
worker whose clock is wrong would drop them all. Counting them needs no clock.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from typing import Any

from celery.beat import ScheduleEntry, Scheduler
from redis.exceptions import RedisError

from tasks.liveness import LivenessFile
from webapp.infra.background import Step, Steps
from webapp.infra.broker import heartbeats
from webapp.infra.broker.client import Client
from webapp.infra.broker.room import Room
from webapp.infra.telemetry import metrics
from webapp.settings import current
from webapp.settings.sweeps import MAINTENANCE_QUEUE

#: Ticks that may wait for a maintenance worker.
MOST_WAITING = 10
#: How long Redis may take to note a tick, seconds.
NOTE_TIMEOUT = 0.25
#: The time over which the first ticks are spread, seconds: that of most of the schedule's lines.
SPREAD = 1.0


class BoundedScheduler(Scheduler):  # type: ignore[misc] # Celery ships no types
    """Sends a tick only when few are waiting, and none while Redis is away."""

    #: Celery's scheduler keeps a producer, and waits for Redis as long as it takes; ours takes one from the pool.
    producer = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        settings = current()
        self.liveness_file = LivenessFile(settings.data_dir, "beat")
        self.client = Client(settings.redis_url)
        self._room = Room(self.client, settings.broker_buffer)
        self._redis = heartbeats.connect(settings.redis_url, NOTE_TIMEOUT)
        # What these raise, such as on a full disk, costs no tick.
        duties = [
            Step("liveness file", self._say_alive),
            Step("tick", self._note_tick, when=self.client.available),
        ]
        self._steps = Steps(duties, metrics.count_failed_step("beat", [step.name for step in duties]))
        super().__init__(*args, **kwargs)

    def setup_schedule(self) -> None:
        """Reads the schedule; its ticks begin one after the other, for all at once they keep a job waiting together."""
        super().setup_schedule()
        for number, entry in enumerate(self.schedule.values()):
            entry.last_run_at -= timedelta(seconds=number * SPREAD / len(self.schedule))

    def tick(self, *args: Any, **kwargs: Any) -> float:
        """Sends what is due; returns the seconds until the next tick."""
        self._steps.run()
        return float(super().tick(*args, **kwargs))

    def _say_alive(self) -> None:
        self.liveness_file.write(ready=self.client.available(), says="the broker does not answer")

    def _note_tick(self) -> None:
        with suppress(RedisError):
            heartbeats.tick(self._redis)

    def apply_async(
        self,
        entry: ScheduleEntry,
        producer: Any = None,
        advance: bool = True,  # noqa: FBT001, FBT002 - Celery's signature
        **kwargs: Any,
    ) -> Any:
        """Sends one tick, or lets it pass."""
        waiting = self._room.most_urgent(MAINTENANCE_QUEUE)
        if waiting is None or waiting >= MOST_WAITING:
            return self.reserve(entry) if advance else None
        return super().apply_async(entry, producer=producer, advance=advance, **kwargs)

    def close(self) -> None:
        """Beat ends."""
        self.liveness_file.remove()
        super().close()
