"""Flow control as values: what can be paused, how it stands, the rules in force, what was changed. No I/O."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple


class Kind(StrEnum):
    """What can be paused."""

    QUEUE = "queues"
    TASK = "tasks"


class Target(NamedTuple):
    """One queue or one task.

    Example:
        >>> str(Target(Kind.QUEUE, "default"))
        'queues/default'
    """

    kind: Kind
    name: str

    def __str__(self) -> str:
        """As records and paths name it."""
        return f"{self.kind}/{self.name}"

    @property
    def words(self) -> str:
        """As sentences name it."""
        return f"{'queue' if self.kind is Kind.QUEUE else 'task'} {self.name!r}"


@dataclass(frozen=True, slots=True)
class Pause:
    """That something is paused: nothing of it starts.

    Args:
        at: since when.
        by: who did it.
        why: what they said.
    """

    at: datetime
    by: str | None
    why: str | None


@dataclass(frozen=True, slots=True)
class FlowState:
    """How a queue or a task stands.

    Args:
        pause: None: it is not paused.
        version: grows with each change; 0 where there was none yet.
    """

    name: str
    pause: Pause | None = None
    version: int = 0


@dataclass(frozen=True, slots=True)
class FlowChange:
    """A change on record: what stood in `old` before and stands in `new` since."""

    id: int
    at: datetime
    who: str | None
    target: str
    old: dict[str, Any]
    new: dict[str, Any]
    why: str | None


@dataclass(frozen=True, slots=True)
class FlowRules:
    """The rules in force.

    Args:
        closed_queues, closed_tasks: paused: none of their jobs starts.
        returning: tasks that are open again, and may have jobs that were set aside meanwhile.
    """

    closed_queues: frozenset[str] = frozenset()
    closed_tasks: frozenset[str] = frozenset()
    returning: frozenset[str] = frozenset()

    @property
    def is_open(self) -> bool:
        """True where nothing is paused."""
        return not (self.closed_queues or self.closed_tasks)

    def closes(self, queue: str, task: str) -> bool:
        """True if a job of this queue and task must not start.

        Example:
            >>> FlowRules(closed_tasks=frozenset({"mail"})).closes("default", "mail")
            True
        """
        return queue in self.closed_queues or task in self.closed_tasks

    def close_any(self, kinds: Iterable[tuple[str, str]]) -> bool:
        """True if a job of one of these queues and tasks must not start."""
        return not self.is_open and any(self.closes(queue, task) for queue, task in kinds)


#: Rules that hold nothing.
OPEN = FlowRules()


class FlowError(Exception):
    """The base of every error that flow control raises."""


class UnknownTarget(FlowError):
    """There is no such queue or task."""

    def __init__(self, target: Target, known: Iterable[str]) -> None:
        super().__init__(f"there is no {target.words}; there are {', '.join(sorted(known))}")
        self.target = target


class StaleVersion(FlowError):
    """It was changed since the version that the request is about."""

    def __init__(self, target: Target, given: str, version: int) -> None:
        super().__init__(
            f'{target.words} was changed meanwhile: If-Match must be its ETag, "{version}"; given: {given[:100]}'
        )
        self.target = target
        self.version = version
