"""Flow control as values: what can be paused, how it stands, the rules in force, what was changed. No I/O."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from hashlib import sha256
from typing import Any, NamedTuple

from webapp.flow.limits import NO_LIMITS, QueueLimits, Rate
from webapp.flow.reach import Reach
from webapp.flow.tenant import told

#: Between queue and key in what a lane's number comes of; a queue's name has no such character.
_BETWEEN = b"\x1f"


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


class KeyTarget(NamedTuple):
    """One key of a queue.

    Example:
        >>> str(KeyTarget("mail", "acme"))
        'queues/mail/keys/acme'
    """

    queue: str
    key: str

    def __str__(self) -> str:
        """As records and paths name it."""
        return f"{Kind.QUEUE}/{self.queue}/keys/{self.key}"

    @property
    def words(self) -> str:
        """As sentences name it."""
        return f"key {self.key!r} of queue {self.queue!r}"


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

    def unsigned(self) -> Pause:
        """The same for one of another tenant: since when, and neither who did it nor what they said."""
        return Pause(self.at, None, None)


@dataclass(frozen=True, slots=True)
class FlowState:
    """How a queue or a task stands.

    Args:
        pause: None: it is not paused.
        version: grows with each change; 0 where there was none yet.
        limits: of a task without those of keys.
    """

    name: str
    pause: Pause | None = None
    version: int = 0
    limits: QueueLimits = NO_LIMITS

    def unsigned(self) -> FlowState:
        """The same for one of another tenant."""
        return self if self.pause is None else replace(self, pause=self.pause.unsigned())


@dataclass(frozen=True, slots=True)
class KeyState:
    """How a key of a queue stands.

    Args:
        pause: None: it is not paused.
        concurrency: jobs of it that may run at once; None: as for every key of its queue.
        weight: its share of the turns, where another key has 1.
        version: grows with each change; 0 where it is like every key.
        rate: how often jobs of it may start; None: as for every key of its queue.
    """

    queue: str
    key: str
    pause: Pause | None = None
    concurrency: int | None = None
    weight: float = 1.0
    version: int = 0
    rate: Rate | None = None

    def told(self) -> KeyState:
        """The same with its key as its client gave it."""
        return replace(self, key=told(self.key))

    def document(self) -> dict[str, Any]:
        """What can be changed of it, as clients see it."""
        return {
            "paused": self.pause is not None,
            "concurrency": self.concurrency,
            "rate": self.rate.document() if self.rate else None,
            "weight": self.weight,
        }


class KeyFigures(NamedTuple):
    """How a key stands, and what it has.

    Args:
        waiting, running: jobs that wait and processes that run some, each counted up to a bound.
    """

    state: KeyState
    waiting: int
    running: int


class KeyRank(StrEnum):
    """What keys may be ranked by: most of it comes first."""

    #: Jobs that wait.
    WAITING = "waiting"
    #: Processes that run jobs of it.
    RUNNING = "running"


class RankedKeys(NamedTuple):
    """Keys of which most waits or runs.

    Args:
        is_capped: there are more jobs than were counted.
    """

    keys: list[KeyFigures]
    is_capped: bool


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
        limited_queues, limited_tasks: their jobs lie in lanes, and are claimed there alone.
        leaving_queues, leaving_tasks: without limits, and may still have jobs in lanes.
        bounded_queues: they take submissions only up to a bound.
    """

    closed_queues: frozenset[str] = frozenset()
    closed_tasks: frozenset[str] = frozenset()
    returning: frozenset[str] = frozenset()
    limited_queues: frozenset[str] = frozenset()
    limited_tasks: frozenset[str] = frozenset()
    leaving_queues: frozenset[str] = frozenset()
    leaving_tasks: frozenset[str] = frozenset()
    bounded_queues: frozenset[str] = frozenset()

    @property
    def is_open(self) -> bool:
        """True where nothing is paused or limited."""
        return not (self.closed_queues or self.closed_tasks or self.limited_queues or self.limited_tasks)

    @property
    def barred_queues(self) -> frozenset[str]:
        """Those whose jobs must not be claimed beside the lanes."""
        return self.closed_queues | self.limited_queues

    @property
    def barred_tasks(self) -> frozenset[str]:
        """Those whose jobs must not be claimed beside the lanes."""
        return self.closed_tasks | self.limited_tasks

    def limits(self, queue: str, task: str) -> bool:
        """True if a job of this queue and task lies in a lane.

        Example:
            >>> FlowRules(limited_queues=frozenset({"mail"})).limits("mail", "send")
            True
        """
        return queue in self.limited_queues or task in self.limited_tasks

    def leaves(self, queue: str) -> bool:
        """True if jobs may lie in lanes of this queue that are under no limit any more."""
        return queue not in self.limited_queues and (queue in self.leaving_queues or bool(self.leaving_tasks))

    def has_lanes_in(self, queue: str) -> bool:
        """True if jobs of this queue may lie in lanes."""
        return queue in self.limited_queues or bool(self.limited_tasks)

    def closes(self, queue: str, task: str) -> bool:
        """True if a job of this queue and task must not start.

        Example:
            >>> FlowRules(closed_tasks=frozenset({"mail"})).closes("default", "mail")
            True
        """
        return queue in self.closed_queues or task in self.closed_tasks

    def close_any(self, kinds: Iterable[tuple[str, str]]) -> bool:
        """True if a job of one of these queues and tasks must not start."""
        return bool(self.closed_queues or self.closed_tasks) and any(
            self.closes(queue, task) for queue, task in kinds
        )


def is_own(target: Target, reach: Reach) -> bool:
    """True if a target is of the caller's tenant: what tenants share is the default one's."""
    return reach.owns(target.name) if target.kind is Kind.QUEUE else not reach.is_guest


#: Rules that hold nothing.
OPEN = FlowRules()


def lane_of(queue: str, key: str | None) -> int:
    """The number of the lane where jobs of a queue and key wait, a `bigint`; `djps_lane` of the database gives the same.

    It comes of the names, so a submission asks no table for it. Two that meet, one pair in 2**64, share limits and exceed none.

    Args:
        key: None for jobs without one: they are a lane of their own.

    Example:
        >>> lane_of("mail", "acme") == lane_of("mail", "acme") != lane_of("mail", None)
        True
    """
    digest = sha256(queue.encode() + _BETWEEN + (key or "").encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)
