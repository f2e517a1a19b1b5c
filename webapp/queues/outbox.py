"""The outbox: hints on their way to Redis, sent by a thread of their own, many at a time.

A request that has committed its job leaves the hint here and answers; it does not wait for Redis. Under load several
hints meet in here and share a pipeline and, for quick tasks, a message. Where nothing is going on, a request sends its one hint
itself: the thread would have to wait until the answer is written, for only one of them runs Python at a time. What
is lost with the process is sent again by the dispatcher, like every hint that is lost.

Nothing that happens here fails a request, whose job is stored by then. Hints that cannot be sent, or that do not fit in,
are given back: the dispatcher sends them.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from uuid import UUID

from webapp.infra.background import Clock, NeededThread, Step
from webapp.infra.broker.hints import Hint, Ticket
from webapp.infra.broker.publish import Broker
from webapp.infra.telemetry import metrics
from webapp.queues.plan import MOST_TICKETS, tickets_for

logger = logging.getLogger(__name__)

#: How long a process that ends waits for the last hints to be sent, seconds.
LAST_CALL = 1.0
#: Shortest time between two sendings while many hints arrive, seconds. A lone hint never waits.
CROWD_PAUSE = 0.01
#: How long nothing has come in before a hint is alone, seconds.
QUIET = 0.01
#: Most hints that wait here; two of the largest batches.
MOST_WAITING = 20_000
#: How long the thread rests after a turn that failed, seconds.
REST = 0.1

#: Those of this process, which begin anew in a forked child.
_outboxes: weakref.WeakSet[Outbox] = weakref.WeakSet()


class Outbox:
    """Sends hints soon.

    Args:
        broker: where they go.
        give_back: is told the jobs whose hints could not be sent.
        clock: by which hints are alone or many.
        has_thread: it may start one; else who puts hints here sends them itself.
    """

    def __init__(
        self,
        broker: Broker,
        give_back: Callable[[Sequence[UUID]], None],
        clock: Clock = time.monotonic,
        *,
        has_thread: bool = True,
    ) -> None:
        self._has_thread = has_thread
        self._broker = broker
        self._give_back = give_back
        self._clock = clock
        self._last_at = float("-inf")
        self._asked_at_exit = False
        self._begin()
        _outboxes.add(self)

    def _begin(self) -> None:
        """Empty, and without a thread: what a parent process holds is sent by the parent."""
        self._waiting: list[Hint] = []
        self._changed = threading.Condition()
        self._sending = 0
        self._thread = NeededThread("outbox", self._send_on)

    def wants(self, queue: str, task: str) -> bool:
        """True if a job that is stored now should be told of; others are left to the dispatcher.

        Where quick jobs come in a crowd they are left in the table, for tickets: a thousand messages with a job each take
        far longer than a thousand jobs.
        """
        if not self._broker.room.fits(queue):
            return False
        return not self._broker.room.is_crowded(queue, MOST_TICKETS) or not self._broker.paces.is_quick(task)

    def wants_all(self, jobs: Mapping[tuple[str, str], int]) -> bool:
        """True if all jobs of a batch should be told of.

        Args:
            jobs: how many, by queue and task.
        """
        return self._broker.has_room_for(jobs)

    def put(self, hints: Sequence[Hint]) -> None:
        """Leaves hints to be sent, and returns at once; one that is alone is sent before this returns, and all where there is no thread."""
        too_many: Sequence[Hint] = ()
        with self._changed:
            now = self._clock()
            is_alone = not self._has_thread or (
                len(hints) == 1 and not self._waiting and now - self._last_at > QUIET
            )
            self._last_at = now
            if self._has_thread and not self._asked_at_exit:
                self._asked_at_exit = True
                atexit.register(self.flush)
            if is_alone:
                self._sending += 1
            else:
                room = MOST_WAITING - len(self._waiting) if self._thread.ensure() else 0
                self._waiting.extend(hints[:room])
                too_many = hints[room:]
                self._changed.notify_all()
        if is_alone:
            self._send(hints)
        if too_many:
            self._return(too_many)

    def call(self, tickets: Collection[Ticket]) -> None:
        """Sends tickets for work in lanes, as many as make chunks, and none for a queue in which enough of them wait.

        Args:
            tickets: one for each job.
        """
        wanted: list[Ticket] = []
        for one, jobs in Counter(tickets).items():
            room = self._broker.room
            if room.fits(one.queue) and not room.is_crowded(one.queue, MOST_TICKETS):
                chunks = tickets_for(jobs, self._broker.paces.chunk_size(one.task), goes_on=False)
                wanted += [one] * min(chunks, MOST_TICKETS)
        if wanted and self._broker.send_tickets(wanted[:MOST_TICKETS]):
            metrics.jobs_dispatched.labels("ticket").inc(len(wanted[:MOST_TICKETS]))

    def flush(self, patience: float = LAST_CALL) -> bool:
        """Waits until everything is sent; False when that takes too long.

        Args:
            patience: seconds.
        """
        with self._changed:
            if self._waiting and not self._thread.ensure():
                return False
            return self._changed.wait_for(lambda: not self._waiting and not self._sending, patience)

    def _send_on(self) -> None:
        step = Step("send", self._send_next)
        while True:
            if step.turn(time.monotonic()) is not None:
                metrics.background_failures.labels("outbox", step.name).inc()
                time.sleep(REST)

    def _send_next(self) -> None:
        """Waits for hints and sends them."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting)
            hints, self._waiting = self._waiting, []
            self._sending += 1
        began = time.monotonic()
        self._send(hints)
        # There is a crowd, for one that is alone does not come here: what comes in the next moment goes together.
        time.sleep(max(0.0, began + CROWD_PAUSE - time.monotonic()))

    def _send(self, hints: Sequence[Hint]) -> None:
        try:
            try:
                sent = self._broker.send_hints(hints)
            except Exception:
                # The jobs are stored; a request must not be told otherwise.
                logger.exception("hints could not be made into messages", extra={"jobs": len(hints)})
                metrics.background_failures.labels("outbox", "send").inc()
                sent = False
            if sent:
                metrics.jobs_dispatched.labels("submitted").inc(len(hints))
            else:
                self._return(hints)
        finally:
            with self._changed:
                self._sending -= 1
                self._changed.notify_all()

    def _return(self, hints: Sequence[Hint]) -> None:
        """Leaves hints to the dispatcher; those it is not told of now it finds later, as sent and not claimed."""
        try:
            self._give_back([hint.id for hint in hints])
        except Exception:
            logger.exception("hints could not be given back", extra={"jobs": len(hints)})
            metrics.background_failures.labels("outbox", "give back").inc()


def _begin_anew() -> None:
    for outbox in _outboxes:
        outbox._begin()  # noqa: SLF001 - of this module


os.register_at_fork(after_in_child=_begin_anew)
