"""Sends what is due to the broker: looks, plans, takes what the plan names, commits, and publishes.

A message is never sent before the commit: a worker that is quicker would find nothing to claim. What was taken and could
not be sent is handed back. Of a paused queue or task nothing is sent: what is due of a paused task is set aside, so that the
others of its queue have their turn.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from webapp.flow import lanes
from webapp.flow.book import FlowBook
from webapp.flow.model import FlowRules
from webapp.infra.broker.hints import Hint, Ticket
from webapp.infra.broker.publish import Broker
from webapp.infra.postgres.engine import in_one_trip, in_transaction
from webapp.infra.telemetry import metrics
from webapp.queues import aside
from webapp.queues import store as queue_store
from webapp.queues.plan import (
    LOOKED_AT,
    MOST_TICKETS,
    Plan,
    TaskPace,
    Waiting,
    lane_tickets,
    plan_dispatch,
    unclaimed_after,
)

logger = logging.getLogger(__name__)


def hand_back(engine: Engine, ids: Sequence[UUID]) -> None:
    """Leaves jobs whose messages were not sent to the dispatcher; should this fail too, `REDISPATCH_AFTER` brings them back."""
    metrics.dispatch_failures.inc(len(ids))
    try:
        in_transaction(engine, lambda connection: queue_store.mark_undispatched(connection, ids))
    except SQLAlchemyError:
        logger.warning("job could not be handed back to the dispatcher", extra={"jobs": len(ids)})


class _Look(NamedTuple):
    """What the table says of a queue.

    Args:
        head: what is due at its head, by task.
        named: waiting jobs that have a message, counted up to the buffer; 0 where there are few messages.
    """

    head: dict[str, Waiting]
    named: int


class Dispatcher:
    """Sends due jobs to the broker, and again those whose messages were lost.

    Args:
        engine: the database.
        broker: where messages are sent.
        book: knows what is paused; None: one of its own.
    """

    def __init__(self, engine: Engine, broker: Broker, book: FlowBook | None = None) -> None:
        self._engine = engine
        self._broker = broker
        self._book = book or FlowBook(engine)

    def dispatch(self, queue: str, *, buffer: int, redispatch_after: float) -> dict[str, int]:
        """Fills one broker queue up to `buffer` from what is due; returns how many messages were sent, by reason.

        Quick jobs get tickets and stay where they are; the others get a message each. Of what is paused nothing is sent.

        Args:
            buffer: most messages of the queue in Redis.
            redispatch_after: seconds before a job that was sent and not claimed is sent again.
        """
        rules = self._book.rules()
        self._file(queue, rules)
        if queue in rules.closed_queues:
            return {}
        length = self._broker.room.length(queue)
        if length is None or length >= buffer:
            return {}
        called = self._call_for_lanes(queue, length) if rules.has_lanes_in(queue) else 0
        if queue in rules.limited_queues:
            return _counted({"ticket": called})
        head, named = self._look_past(queue, rules.closed_tasks, length, buffer)
        # Redis is asked before the transaction begins, not while it is open.
        paces = {task: self._pace_of(task) for task in head}
        plan = plan_dispatch(queue, head, paces, length=length, named=named, buffer=buffer)
        age = unclaimed_after(length, redispatch_after)
        besides = (*plan.besides, *rules.closed_tasks)
        due, unclaimed = in_transaction(
            self._engine, lambda connection: _take(connection, queue, plan, besides, age)
        )
        sent = {
            "due": self._send(due),
            "unclaimed": self._send(unclaimed),
            "ticket": called + self._send_tickets(plan.tickets),
        }
        return _counted(sent)

    def _file(self, queue: str, rules: FlowRules) -> None:
        """Files what waits beside the lanes of a queue that has limits, and brings jobs out of lanes that it has no more."""
        if queue in rules.limited_queues or rules.limited_tasks:
            tasks = None if queue in rules.limited_queues else rules.limited_tasks
            self._in_batches(lambda connection: lanes.file_beside(connection, queue, tasks))
        if rules.leaves(queue):
            in_transaction(self._engine, lambda connection: lanes.call(connection, queue))
            self._in_batches(lambda connection: lanes.leave(connection, queue, rules))

    def _in_batches(self, work: Callable[[Connection], int]) -> None:
        for _ in range(aside.BATCHES):
            if not in_transaction(self._engine, work):
                break

    def _call_for_lanes(self, queue: str, length: int) -> int:
        """Sends tickets for what may start from the lanes of a queue; returns how many."""
        work = in_one_trip(self._engine, lambda connection: lanes.look(connection, queue, LOOKED_AT))
        chunks = {task: self._broker.paces.chunk_size(task) for task in work}
        return self._send_tickets(lane_tickets(queue, work, chunks, waiting=length))

    def _send_tickets(self, tickets: Sequence[Ticket]) -> int:
        return len(tickets) if tickets and self._broker.send_tickets(tickets) else 0

    def _look_past(self, queue: str, closed: Collection[str], length: int, buffer: int) -> _Look:
        """What the table says of a queue once the jobs of closed tasks at its head, up to some batches, are set aside."""
        for batch in range(aside.BATCHES + 1):
            look = in_one_trip(self._engine, lambda connection: _look(connection, queue, length, buffer))
            held = [task for task in look.head if task in closed]
            if not held or batch == aside.BATCHES:
                break
            if not in_transaction(self._engine, partial(aside.set_aside, queue=queue, tasks=closed)):
                break
        return look._replace(head={task: one for task, one in look.head.items() if task not in closed})

    def bring_back(self, queues: Sequence[str]) -> int:
        """Brings back what was set aside of tasks that are open again, a batch of each queue; returns how many jobs."""
        returning = self._book.rules().returning
        if not returning:
            return 0
        back = sum(
            in_transaction(self._engine, partial(aside.bring_back, queue=queue, tasks=returning))
            for queue in queues
        )
        if not back:
            in_transaction(self._engine, partial(aside.note_all_back, tasks=returning))
        return back

    def _pace_of(self, task: str) -> TaskPace:
        broker = self._broker
        return TaskPace(
            broker.paces.is_known(task), broker.paces.is_quick(task), broker.paces.chunk_size(task)
        )

    def _send(self, hints: Sequence[Hint]) -> int:
        """Sends messages for jobs that were taken; returns for how many, 0 when they were handed back."""
        if not hints:
            return 0
        if self._broker.send_hints(hints):
            return len(hints)
        hand_back(self._engine, [hint.id for hint in hints])
        return 0

    def send_each(self, hints: Sequence[Hint]) -> bool:
        """Sends a message for each of these jobs, which are marked as dispatched; False when they are left to the dispatcher."""
        sent = self._broker.send_each(hints)
        if not sent:
            hand_back(self._engine, [hint.id for hint in hints])
        return sent

    def refill(self) -> int:
        """Takes back every job whose message was lost with Redis's memory; returns how many there were."""
        if not self._broker.client.available() or not self._broker.epoch.is_over():
            return 0
        taken_back = in_transaction(self._engine, queue_store.forget_dispatched)
        self._broker.epoch.begin()
        if taken_back:
            logger.warning("broker had lost its messages, they are sent again", extra={"jobs": taken_back})
        return taken_back

    def seconds_to_next_due(self, queues: Sequence[str], within: float) -> float | None:
        """Seconds until the next undispatched job of a queue that is not paused is due, when that is less than `within`."""
        rules = self._book.rules()
        plain = [name for name in queues if name not in rules.barred_queues]
        in_lanes = [name for name in queues if rules.has_lanes_in(name) and name not in rules.closed_queues]
        with self._engine.connect() as connection:
            seconds = [queue_store.seconds_to_next_due(connection, plain, within)]
            if in_lanes:
                seconds.append(lanes.seconds_to_next_start(connection, in_lanes, within))
        return min((one for one in seconds if one is not None), default=None)


def _counted(sent: dict[str, int]) -> dict[str, int]:
    """What was sent, by reason, once it is counted."""
    for reason, count in sent.items():
        if count:
            metrics.jobs_dispatched.labels(reason).inc(count)
    return {reason: count for reason, count in sent.items() if count}


def _look(connection: Connection, queue: str, length: int, buffer: int) -> _Look:
    head = queue_store.look_at_head(connection, queue)
    named = queue_store.count_named(connection, queue, buffer) if head and length >= MOST_TICKETS else 0
    return _Look(head, named)


def _take(
    connection: Connection, queue: str, plan: Plan, besides: Sequence[str], age: float
) -> tuple[list[Hint], list[Hint]]:
    """Marks the jobs that get a message: due ones first, then those that were sent and not claimed for `age` seconds.

    Args:
        besides: tasks whose due jobs are left where they are.
    """
    due = queue_store.take_due(connection, queue, plan.due, besides=besides) if plan.due else []
    room = plan.room - len(due)
    return due, queue_store.take_unclaimed(connection, queue, room, age) if room > 0 else []
