"""What messages are made from: a hint names a job, a ticket names work that waits."""

from __future__ import annotations

from typing import NamedTuple
from uuid import UUID

#: Priority of a job that asks for none.
DEFAULT_PRIORITY = 5


class Hint(NamedTuple):
    """What a message about a job is made from.

    Args:
        id: the job.
        task: its handler.
        queue: where it waits.
        timeout: seconds an attempt may take.
        priority: 0 to 9, higher first.
    """

    id: UUID
    task: str
    queue: str
    timeout: float
    priority: int = DEFAULT_PRIORITY


class Ticket(NamedTuple):
    """What a message about a queue's backlog is made from.

    Args:
        queue: where the jobs wait.
        task: their handler.
        timeout: longest an attempt of them may take, seconds; jobs that may take longer are left alone.
        priority: that of the most urgent of them; the ticket waits in Redis as a message about that job would.
    """

    queue: str
    task: str
    timeout: float
    priority: int = DEFAULT_PRIORITY
