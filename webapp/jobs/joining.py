"""Who stands around the jobs of a request when they are stored: who tells the workers of them, and the group that they join."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol
from uuid import UUID

from sqlalchemy import Connection

from webapp.infra.broker.hints import Hint, Ticket


class Hints(Protocol):
    """Tells the workers of stored jobs: an `Outbox`."""

    def wants(self, queue: str, task: str) -> bool:
        """True if a job that is stored now should be told of; others are left to the dispatcher."""

    def wants_all(self, jobs: Mapping[tuple[str, str], int]) -> bool:
        """True if all jobs of a batch should be told of: how many, by queue and task."""

    def put(self, hints: Sequence[Hint]) -> None:
        """Sends hints soon, and returns at once."""

    def call(self, tickets: Collection[Ticket]) -> None:
        """Tells of work in lanes, a ticket for each job, unless enough is on its way; the dispatcher finds what is not told of."""

    def flush(self) -> bool:
        """Waits until everything is sent; False when that takes too long."""


class Joining(Protocol):
    """A group that the jobs of a request join, in the transaction that stores them."""

    group: UUID

    def begin(self, connection: Connection) -> None:
        """Comes before the jobs; what it raises keeps them from being stored."""

    def end(self, connection: Connection, placed: Sequence[object], created: int) -> None:
        """Comes after them; what it raises takes them back.

        Args:
            placed: what became of each submission: `Placed`, or why it was not stored.
            created: how many were stored.
        """
