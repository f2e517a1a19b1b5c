"""What one look at a queue leads to: how many messages and tickets, and for which jobs. Pure.

A job of a slow or an unknown task gets a message that names it. Quick jobs get tickets: one ticket is a moment of work
for one child, which claims what is due straight from the table.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice, zip_longest
from typing import NamedTuple

from webapp.flow.lanes import LaneWork
from webapp.infra.broker.hints import Ticket

#: Tickets of a queue that may wait in Redis: enough that no child runs dry between two looks of the dispatcher.
MOST_TICKETS = 16
#: Due jobs that are looked at to learn what is waiting.
LOOKED_AT = 200
#: Messages of a queue while the pace of a task at its head is not known.
FIRST_MESSAGES = 16
#: A job that was sent and not claimed is sent again after this long when its queue is empty, seconds.
REDISPATCH_WHEN_EMPTY = 5.0


class Waiting(NamedTuple):
    """Due jobs of one task at the head of a queue.

    Args:
        jobs: how many.
        timeout: longest an attempt of them may take, seconds.
        priority: that of the most urgent of them.
    """

    jobs: int
    timeout: float
    priority: int


class TaskPace(NamedTuple):
    """How quick the jobs of a task are.

    Args:
        is_known: whether it was measured, or its handler says so.
        is_quick: whether several of them are one message's work.
        chunk: how many of them a child takes at once.
    """

    is_known: bool
    is_quick: bool
    chunk: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done for one queue.

    Args:
        due: most due jobs that are looked at to give them messages; 0 where none is to get one.
        besides: tasks whose due jobs are left for tickets.
        room: most messages that name a job, those for `due` included.
        tickets: those to send.
    """

    due: int
    besides: tuple[str, ...]
    room: int
    tickets: tuple[Ticket, ...]


def plan_dispatch(
    queue: str,
    head: Mapping[str, Waiting],
    paces: Mapping[str, TaskPace],
    *,
    length: int,
    named: int,
    buffer: int,
) -> Plan:
    """Decides what is sent for a queue.

    Args:
        queue: its name.
        head: what is due at the head of the queue, by task.
        paces: how quick these tasks are.
        length: messages of the queue in Redis.
        named: waiting jobs that have a message; the other messages are tickets. 0 where there are few messages.
        buffer: most messages of the queue in Redis.
    """
    room = buffer - length
    if room <= 0:
        return Plan(0, (), 0, ())
    quick = {task: waiting for task, waiting in head.items() if paces[task].is_quick}
    if not all(paces[task].is_known for task in head):
        # A moment from now the first jobs tell how quick they are; a thousand messages would be far too many by then.
        room = max(0, min(room, FIRST_MESSAGES - length))
    room_for_tickets = max(0, MOST_TICKETS - max(0, length - named))
    # Where no ticket fits in, quick jobs take their turn with the slow ones: else these would pass them for ever.
    besides = tuple(quick) if room_for_tickets else ()
    due = room if len(quick) < len(head) else 0
    return Plan(due, besides, room, _tickets(queue, quick, paces, room_for_tickets))


def _tickets(
    queue: str, quick: Mapping[str, Waiting], paces: Mapping[str, TaskPace], room: int
) -> tuple[Ticket, ...]:
    """Tickets for quick tasks, each in turn, as many as there is work for and room."""
    goes_on = sum(waiting.jobs for waiting in quick.values()) >= LOOKED_AT
    of_each = [
        [Ticket(queue, task, waiting.timeout, waiting.priority)]
        * tickets_for(waiting.jobs, paces[task].chunk, goes_on=goes_on)
        for task, waiting in quick.items()
    ]
    in_turn = (ticket for turn in zip_longest(*of_each) for ticket in turn if ticket is not None)
    return tuple(islice(in_turn, room))


def tickets_for(jobs: int, chunk: int, *, goes_on: bool) -> int:
    """How many children have work with a task's jobs at the head of a queue.

    Args:
        jobs: of the task, among the `LOOKED_AT` that were looked at.
        chunk: how many of them a child takes at once.
        goes_on: whether more may wait behind those; then the task's share of the head is its share of the tickets.

    Example:
        >>> tickets_for(3, 100, goes_on=False), tickets_for(50, 100, goes_on=True)
        (1, 4)
    """
    return math.ceil(MOST_TICKETS * jobs / LOOKED_AT if goes_on else jobs / chunk)


def lane_tickets(
    queue: str, work: Mapping[str, LaneWork], chunks: Mapping[str, int], *, waiting: int
) -> tuple[Ticket, ...]:
    """Tickets for what may start from the lanes of a queue: no more than there is work and room under its limits.

    Args:
        work: by task.
        chunks: how many jobs of a task a child takes at once.
        waiting: messages of the queue in Redis.
    """
    of_each = []
    for task, one in work.items():
        goes_on = one.jobs >= LOOKED_AT
        wanted = tickets_for(min(one.jobs, LOOKED_AT), chunks[task], goes_on=goes_on)
        room = MOST_TICKETS if one.room is None else max(0, one.room)
        of_each.append([Ticket(queue, task, one.timeout, one.priority)] * max(0, min(wanted, room - waiting)))
    in_turn = (ticket for turn in zip_longest(*of_each) for ticket in turn if ticket is not None)
    return tuple(islice(in_turn, max(0, MOST_TICKETS - waiting)))


def unclaimed_after(length: int, redispatch_after: float) -> float:
    """Seconds after which a job that was sent and not claimed is sent again.

    Args:
        length: messages of its queue in Redis; with none the job's own is lost.
        redispatch_after: the setting.

    Example:
        >>> unclaimed_after(0, 60.0), unclaimed_after(3, 60.0)
        (5.0, 60.0)
    """
    return min(REDISPATCH_WHEN_EMPTY, redispatch_after) if length == 0 else redispatch_after
