"""What messages carry and how long they may run: one about a job, about several, about a backlog, about a dead letter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from webapp.infra.broker import transport
from webapp.infra.broker.hints import Hint, Ticket
from webapp.infra.broker.message_pattern import MessagePattern

if TYPE_CHECKING:
    from celery import Celery

EXECUTE_JOB = "tasks.execute_job"
EXECUTE_JOBS = "tasks.execute_jobs"
EXECUTE_DUE = "tasks.execute_due"
DEAD_LETTER_JOB = "tasks.bury_job"

#: Priority of messages about dead letters: what beat asks for is the most urgent of its queue, and passes them.
DEAD_LETTER_PRIORITY = 5
#: How long a chunk's message runs before its jobs that have not begun are handed back, seconds.
CHUNK_WINDOW = 1.0
#: How long a ticket's message goes on claiming, seconds: other queues have their turn after that.
TICKET_WINDOW = 0.5
#: ... and how long where no other message waits and it holds a slot of a limit, seconds; a worker that is to stop waits for it.
LONGEST_TICKET = 3.0

#: Seconds a handler gets after its soft time limit before its process is killed.
HARD_LIMIT_GRACE = 5.0
#: Seconds that a message may run beyond its handler's limits, before Celery ends its process: a claim and a settle are tried
#: again for a share of a lease while the database is away. The worker's presence has long ended a handler by then.
CLAIM_AND_SETTLE = 3_600.0


@dataclass(frozen=True, slots=True)
class Message:
    """One message about to be sent.

    Args:
        args: the Celery task's arguments.
        task_id: how Celery and Flower name it.
        shown: its arguments, for people.
    """

    pattern: MessagePattern
    args: list[Any]
    task_id: str
    shown: str

    @property
    def key(self) -> str:
        """The Redis list where it waits."""
        return transport.list_at(self.pattern.queue, self.pattern.priority)

    def sealed(self, celery: Celery) -> str:
        """Its text in that list; Celery says what a message looks like."""
        return self.pattern.fill(celery, self.args, task_id=self.task_id, shown=self.shown)


def job_message(hints: Sequence[Hint]) -> Message:
    """A message for one job, or for several; it has no soft limit, for each of its jobs has its own.

    Flower shows the handler as the message's name, and the id of the (first) job as its id.
    """
    one = hints[0]
    first, timeout = str(one.id), one.timeout
    where = (one.queue, transport.kombu_priority(one.priority), one.task)
    if len(hints) == 1:
        pattern = MessagePattern(EXECUTE_JOB, *where, _limit(timeout))
        return Message(pattern, [first], first, "1 job")
    pattern = MessagePattern(EXECUTE_JOBS, *where, _limit(CHUNK_WINDOW + timeout))
    ids = [str(hint.id) for hint in hints]
    return Message(pattern, [ids], first, f"{len(ids)} jobs from this one on")


def _limit(running: float) -> float:
    """Seconds after which Celery ends the process that runs a message.

    Args:
        running: seconds that its handlers may take.
    """
    return running + HARD_LIMIT_GRACE + CLAIM_AND_SETTLE


def ticket_message(ticket: Ticket) -> Message:
    """A message for a moment of work; it has no soft limit, for each of the jobs has its own."""
    limit = _limit(LONGEST_TICKET + CHUNK_WINDOW + ticket.timeout)
    priority = transport.kombu_priority(ticket.priority)
    pattern = MessagePattern(EXECUTE_DUE, ticket.queue, priority, ticket.task, limit)
    args = [ticket.queue, ticket.task, ticket.timeout]
    return Message(pattern, args, str(uuid4()), "a ticket: the next due jobs")


def dead_letter_message(job_id: UUID, attempt: int, queue: str) -> Message:
    """Asks the dead letter task to move a job; what beat asks for comes before it, however many jobs have died."""
    pattern = MessagePattern(DEAD_LETTER_JOB, queue, transport.kombu_priority(DEAD_LETTER_PRIORITY))
    return Message(pattern, [str(job_id), attempt], str(uuid4()), f"{job_id}, attempt {attempt}")
