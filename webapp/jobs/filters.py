"""Which jobs are looked for, in the words of SQL; and the parts of the table that have an index for it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from webapp.flow.reach import Reach
from webapp.flow.tenant import DEFAULT_TENANT, told
from webapp.infra.postgres.literals import text_array_of

#: What the clock of the process that made a job's id may be off from PostgreSQL's.
CLOCK_SLACK = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Filter:
    """Which jobs are wanted: all that is given must hold; None stands for any.

    Args:
        tags: the job has all of them.
        created_after: at this moment or later.
        created_before: earlier than this moment.
        payload: JSON text that the payload must contain, as `@>` has it.
        queues: it is in one of these; of none, nothing is wanted.
        tenant: the number of the tenant whose it is.
        since: there is none that was made before, so days that ended by then are not looked at.
        group: it is a member of this batch or workflow.
    """

    status: str | None = None
    task: str | None = None
    queue: str | None = None
    tags: tuple[str, ...] = ()
    created_after: datetime | None = None
    created_before: datetime | None = None
    payload: str | None = None
    key: str | None = None
    queues: tuple[str, ...] | None = None
    tenant: int | None = None
    since: datetime | None = None
    group: UUID | None = None

    def within(self, reach: Reach) -> Filter:
        """The same, of what a caller reaches."""
        queue, queues = reach.narrowed(self.queue)
        key = None if self.key is None else reach.kept(told(self.key))
        since = max(filter(None, (self.since, reach.since if reach.is_guest else None)), default=None)
        return replace(self, queue=queue, queues=queues, tenant=reach.number, since=since, key=key)

    @property
    def is_of_guest(self) -> bool:
        """True for a tenant beside the default one, whose jobs have an index of their own."""
        return self.tenant is not None and self.tenant != DEFAULT_TENANT

    def values(self) -> dict[str, Any]:
        """The parameters of its conditions, by name."""
        given: dict[str, Any] = {
            "status": self.status,
            "task": self.task,
            "queue": self.queue,
            "tags": text_array_of(self.tags) if self.tags else None,
            "created_after": self.created_after,
            "created_before": self.created_before,
            "payload": self.payload,
            "key": self.key,
            "group": self.group,
            "queues": None if self.queues is None else text_array_of(self.queues),
            "tenant" if self.is_of_guest else "default_tenant": self.tenant,
        }
        if since := max(filter(None, (self.created_after, self.since)), default=None):
            given["from_id"] = first_id(since, -CLOCK_SLACK)
        if self.created_before is not None:
            given["to_id"] = first_id(self.created_before, CLOCK_SLACK)
        return {name: value for name, value in given.items() if value is not None}

    @property
    def is_search(self) -> bool:
        """True if jobs have to be looked at one by one: what is wanted is not found by an index alone."""
        names = frozenset(self.values()) - {"default_tenant"}
        return any(part.rest(names) for part in parts_of(self))


#: A condition for each parameter. The bounds of ids let the primary key find a time: ids begin with theirs.
CONDITIONS = {
    "status": "status = :status",
    "task": "task = :task",
    "queue": "queue = :queue",
    "tags": "tags <> '{}' AND tags @> CAST(:tags AS text[])",
    "created_after": "created_at >= :created_after",
    "created_before": "created_at < :created_before",
    "payload": "payload @> CAST(:payload AS jsonb)",
    "key": "key = :key",
    "group": "group_id = :group",
    "queues": "queue = ANY(CAST(:queues AS text[]))",
    "tenant": f"tenant_id = :tenant AND tenant_id <> {DEFAULT_TENANT}",
    # As `webapp.flow.reached` says why.
    "default_tenant": "tenant_id <= :default_tenant",
    "from_id": "id >= :from_id",
    "to_id": "id < :to_id",
    "ended_from": "(finished_at IS NULL OR finished_at >= :ended_from)",
    "ended_after": "finished_at >= :ended_after",
}
#: What an index and the choice of partitions answer by themselves.
_FOUND = frozenset({"from_id", "to_id", "ended_from"})


def first_id(moment: datetime, later: timedelta = timedelta(0)) -> UUID:
    """The smallest UUIDv7 of a moment (RFC 9562, 5.7: its first 48 bits are milliseconds since 1970).

    Args:
        later: added to the moment, which may be the first or the last that a `datetime` can be.
    """
    milliseconds = max(0, int((moment.timestamp() + later.total_seconds()) * 1_000))
    return UUID(int=milliseconds << 80)


def all_of(names: Iterable[str]) -> str:
    """The conditions of these names, all of which must hold."""
    return " AND ".join(CONDITIONS[name] for name in sorted(names)) or "true"


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the table that has an index of its own, in the order of ids.

    Args:
        column: what that index begins with, before the id; empty for the primary key.
        value: what the column is in this part, as SQL; without a column, the condition that `rows` answers.
        where: the index's own condition.
        rows: where its jobs are read from.
    """

    column: str = ""
    value: str = ""
    where: str = "true"
    rows: str = "jobs"

    @property
    def order(self) -> str:
        """The newest first, in the words of its index."""
        return f"{self.column} DESC, id DESC" if self.column else "id DESC"

    def bounds(self, names: frozenset[str]) -> str:
        """What the index finds.

        With `task = :task` the order would be that of the primary key as well, and where the newest jobs are a backlog of
        others the planner walks through all of it. Between two pairs of task and id there is only one index in this order.
        """
        if not self.column:
            return f"{self.where} AND {all_of(names & _FOUND)}"
        column, value = self.column, self.value
        low = f"({column}, id) >= ({value}, :from_id)" if "from_id" in names else f"{column} >= {value}"
        high = f"({column}, id) < ({value}, :to_id)" if "to_id" in names else f"{column} <= {value}"
        return f"{self.where} AND {low} AND {high} AND {all_of(names & {'ended_from'})}"

    def rest(self, names: frozenset[str]) -> frozenset[str]:
        """The conditions that the index leaves to be looked at in each job."""
        found = {self.value.removeprefix(":")}
        # A key is kept behind the mark of its tenant.
        return names - _FOUND - (found | {"tenant", "default_tenant"} if found == {"key"} else found)

    @property
    def is_of_history(self) -> bool:
        """True if its jobs may have ended, so that it has a part in every day of history."""
        return self.rows == "jobs" and _LIVING not in self.where


_AT_REST = "status <> 'processing'"
_ALL = Part()
_LIVING, _FINISHED = "finished_at IS NULL", "finished_at IS NOT NULL"
_BY_STATUS = Part("status", ":status", f"{_FINISHED} AND {_AT_REST}")
_WAITING = Part("status", ":status", f"{_LIVING} AND {_AT_REST}")
_QUEUED = Part("status", "'queued'", f"{_LIVING} AND {_AT_REST}")
_BY_TASK = Part("task", ":task", _FINISHED)
_BY_QUEUE = Part("queue", ":queue", _FINISHED)
#: Those of a key, whatever their state.
_BY_KEY = Part("key", ":key", "key IS NOT NULL")
#: Those of a group, whatever their state.
_OF_GROUP = Part("group_id", ":group", "group_id IS NOT NULL")
#: Those of a tenant beside the default one, whatever their state, and those of them that have not ended.
_OF_TENANT = Part("tenant_id", ":tenant", f"tenant_id <> {DEFAULT_TENANT}")
_LIVING_OF_TENANT = Part("tenant_id", ":tenant", f"{_LIVING} AND tenant_id <> {DEFAULT_TENANT}")
#: Jobs that run are few, and have an index of their own. OFFSET keeps the planner from looking for the newest of them
#: among all jobs.
_PROCESSING = Part(
    value=":status",
    rows=f"(SELECT * FROM jobs WHERE {_LIVING} AND status = 'processing' OFFSET 0) AS running",
)
#: Jobs that were found by an index without an order, none of which had ended before `few_from`.
GIVEN = Part(
    rows="(SELECT * FROM jobs WHERE id = ANY(CAST(:few AS uuid[]))"
    " AND (finished_at IS NULL OR finished_at >= :few_from) OFFSET 0) AS given"
)


def parts_of(wanted: Filter) -> tuple[Part, ...]:
    """Members of a group are found by that; jobs with a key by it; those of a tenant by that; finished ones by their task or queue; others by their status."""
    if wanted.group is not None:
        return (_OF_GROUP,)
    if wanted.key is not None:
        return (_BY_KEY,)
    return _parts_of_tenant(wanted) if wanted.is_of_guest else _parts_of_all(wanted)


def _parts_of_tenant(wanted: Filter) -> tuple[Part, ...]:
    return (_LIVING_OF_TENANT if wanted.status in {"queued", "processing"} else _OF_TENANT,)


def _parts_of_all(wanted: Filter) -> tuple[Part, ...]:
    if wanted.status == "processing":
        return (_PROCESSING,)
    if wanted.status == "queued":
        return (_WAITING,)
    if wanted.status and wanted.task is None and wanted.queue is None:
        return (_BY_STATUS,)
    if wanted.task is None and wanted.queue is None:
        return (_ALL,)
    finished = _BY_QUEUE if wanted.task is None else _BY_TASK
    return (finished, _QUEUED, _PROCESSING) if wanted.status is None else (finished,)
