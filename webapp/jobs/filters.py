"""Which jobs are looked for, in the words of SQL; and the parts of the table that have an index for it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

from webapp.flow.reach import Reach
from webapp.flow.tenant import DEFAULT_TENANT, told
from webapp.infra.postgres.literals import array_of, text_array_of

#: What the clock of the process that made a job's id may be off from PostgreSQL's.
CLOCK_SLACK = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Filter:
    """Which jobs are wanted: all that is given must hold; None stands for any.

    Args:
        statuses, tasks, of_queues: more than one; the job has any of them.
        not_tasks, not_queues, not_tags: the job has none of them.
        priorities: the job has any of them.
        tags: the job has all of them.
        created_after: at this moment or later.
        created_before: earlier than this moment.
        payload: JSON text that the payload must contain, as `@>` has it.
        queues: it is in one of these; of none, nothing is wanted.
        tenant: the number of the tenant whose it is.
        since: there is none that was made before, so days that ended by then are not looked at.
        error: the class of its last error, without a module.
        worker: the worker, or one process of it, that runs the job, or ended its newest attempt.
        finished_after, due_after: at this moment or later.
        finished_before, due_before: earlier than this moment.
        newer_than: its id is greater than this one.
        ids: it is one of these.
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
    statuses: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    of_queues: tuple[str, ...] = ()
    not_tasks: tuple[str, ...] = ()
    not_queues: tuple[str, ...] = ()
    not_tags: tuple[str, ...] = ()
    priorities: tuple[int, ...] = ()
    error: str | None = None
    worker: str | None = None
    finished_after: datetime | None = None
    finished_before: datetime | None = None
    due_after: datetime | None = None
    due_before: datetime | None = None
    idempotency_key: str | None = None
    request_id: str | None = None
    newer_than: UUID | None = None
    ids: tuple[UUID, ...] | None = None
    group: UUID | None = None

    def within(self, reach: Reach) -> Filter:
        """The same, of what a caller reaches."""
        queue, queues = reach.narrowed(self.queue)
        key = None if self.key is None else reach.kept(told(self.key))
        since = max(filter(None, (self.since, reach.since if reach.is_guest else None)), default=None)
        sent = None if self.idempotency_key is None else reach.kept(told(self.idempotency_key))
        mine = tuple(name for name in self.of_queues if reach.has(name))
        if self.of_queues and not mine:
            queues = ()
        return replace(
            self,
            queue=queue,
            queues=queues,
            of_queues=mine,
            tenant=reach.number,
            since=since,
            key=key,
            idempotency_key=sent,
        )

    @property
    def is_of_guest(self) -> bool:
        """True for a tenant beside the default one, whose jobs have an index of their own."""
        return self.tenant is not None and self.tenant != DEFAULT_TENANT

    def values(self) -> dict[str, Any]:
        """The parameters of its conditions, by name."""
        given: dict[str, Any] = self._of_many() | {
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
        since = max(filter(None, (self.created_after, self.since)), default=None)
        given["from_id"] = None if since is None else first_id(since, -CLOCK_SLACK)
        if self.newer_than is not None:
            after = UUID(int=min(self.newer_than.int + 1, _LAST_ID))
            given["from_id"] = max(filter(None, (given["from_id"], after)))
        # A job was made before it ended.
        until = min(filter(None, (self.created_before, self.finished_before)), default=None)
        if until is not None:
            given["to_id"] = first_id(until, CLOCK_SLACK)
        return {name: value for name, value in given.items() if value is not None}

    def _of_many(self) -> dict[str, Any]:
        """The parameters that most lists do without."""
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        day = timedelta(days=1)
        return {
            **{name: text_array_of(of) if of else None for name, of in arrays.items()},
            "priorities": array_of(self.priorities) if self.priorities else None,
            **{name: getattr(self, name) for name in _PLAIN},
            "from_day": None if self.finished_after is None else _day_of(self.finished_after),
            "to_day": None if self.finished_before is None else _day_of(self.finished_before, day),
        }

    @property
    def is_of_few(self) -> bool:
        """True if the jobs are named, so that there are few to look at."""
        return self.ids is not None or self.idempotency_key is not None

    @property
    def ends_within(self) -> bool:
        """True if only jobs that ended are wanted, by when they did."""
        return self.finished_after is not None or self.finished_before is not None

    @property
    def has_several(self) -> bool:
        """True if there is an index for each of several values, and none for all of them together."""
        return any((self.statuses, self.tasks, self.of_queues, self.ends_within))

    @property
    def is_search(self) -> bool:
        """True if jobs have to be looked at one by one: what is wanted is not found by an index alone."""
        if self.is_of_few:
            return False
        names = frozenset(self.values()) - {"default_tenant"}
        return any(part.rest(names) for part in parts_of(self))


#: The greatest id there can be.
_LAST_ID = 2**128 - 1
#: Parameters that are arrays of texts, and those that are the filter's own values.
_ARRAYS = ("statuses", "tasks", "of_queues", "not_tasks", "not_queues", "not_tags")
_PLAIN = (
    *("error", "worker", "finished_after", "finished_before", "due_after", "due_before"),
    *("idempotency_key", "request_id"),
)
#: Who runs a job, or ended its newest attempt.
_HOLDER = "coalesce(worker_id, ended_by)"
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
    "statuses": "status = ANY(CAST(:statuses AS text[]))",
    "tasks": "task = ANY(CAST(:tasks AS text[]))",
    "of_queues": "queue = ANY(CAST(:of_queues AS text[]))",
    "not_tasks": "task <> ALL(CAST(:not_tasks AS text[]))",
    "not_queues": "queue <> ALL(CAST(:not_queues AS text[]))",
    "not_tags": "NOT tags && CAST(:not_tags AS text[])",
    "priorities": "priority = ANY(CAST(:priorities AS int[]))",
    "error": "coalesce(last_error = :error OR starts_with(last_error, :error || ':'), false)",
    "worker": f"coalesce({_HOLDER} = :worker OR starts_with({_HOLDER}, :worker || '/'), false)",
    "finished_after": "coalesce(finished_at >= :finished_after, false)",
    "finished_before": "coalesce(finished_at < :finished_before, false)",
    "due_after": "run_at >= :due_after",
    "due_before": "run_at < :due_before",
    "idempotency_key": "idempotency_key = :idempotency_key",
    "request_id": "request_id = :request_id",
    # Whole days, so that those before and after are not opened, and nothing of a day is read in vain.
    "from_day": "finished_at >= :from_day",
    "to_day": "finished_at < :to_day",
}
#: Which days of history are opened.
_DAYS = frozenset({"from_day", "to_day"})
#: What an index and the choice of partitions answer by themselves.
_FOUND = frozenset({"from_id", "to_id", "ended_from"})


def _day_of(moment: datetime, later: timedelta = timedelta(0)) -> datetime:
    """Midnight, in UTC, of the day of a moment, or of one that much later; the last day there is has no other after it."""
    day = moment.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return day + later if day.date() < date.max else moment


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
        finds: conditions beside that of `value` which hold for all of its jobs.
    """

    column: str = ""
    value: str = ""
    where: str = "true"
    rows: str = "jobs"
    finds: frozenset[str] = frozenset()

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
        days = names & _DAYS if _FINISHED in self.where else frozenset()
        column, value = self.column, self.value
        low = f"({column}, id) >= ({value}, :from_id)" if "from_id" in names else f"{column} >= {value}"
        high = f"({column}, id) < ({value}, :to_id)" if "to_id" in names else f"{column} <= {value}"
        return f"{self.where} AND {low} AND {high} AND {all_of((names & {'ended_from'}) | days)}"

    def rest(self, names: frozenset[str]) -> frozenset[str]:
        """The conditions that the index leaves to be looked at in each job."""
        found = {self.value.removeprefix(":")}
        # A key is kept behind the mark of its tenant.
        beside = {"tenant", "default_tenant"} if found == {"key"} else set()
        return names - _FOUND - _DAYS - found - beside - self.finds

    @property
    def is_of_history(self) -> bool:
        """True if its jobs may have ended, so that it has a part in every day of history."""
        return self.rows == "jobs" and _LIVING not in self.where


#: The states of jobs that ended.
ENDED = ("completed", "failed", "cancelled")
_AT_REST = "status <> 'processing'"
_ALL = Part()
_LIVING, _FINISHED = "finished_at IS NULL", "finished_at IS NOT NULL"
_BY_STATUS = Part("status", ":status", f"{_FINISHED} AND {_AT_REST}")
_WAITING = Part("status", ":status", f"{_LIVING} AND {_AT_REST}")
_QUEUED = Part("status", "'queued'", f"{_LIVING} AND {_AT_REST}")
_BY_TASK = Part("task", ":task", _FINISHED)
_BY_QUEUE = Part("queue", ":queue", _FINISHED)
#: What a part of one state answers.
_BY_STATES = frozenset({"statuses", "status"})
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
#: Where nothing can match.
_NONE = Part(rows="(SELECT * FROM jobs_living WHERE false) AS none")
#: Jobs that were found by an index without an order, none of which had ended before `few_from`.
GIVEN = Part(
    rows="(SELECT * FROM jobs WHERE id = ANY(CAST(:few AS uuid[]))"
    " AND (finished_at IS NULL OR finished_at >= :few_from) OFFSET 0) AS given"
)


def parts_of(wanted: Filter) -> tuple[Part, ...]:
    """Members of a group are found by that; jobs with a key by it; those of a tenant by that; finished ones by their task or queue; others by their status."""
    if wanted.is_of_few:
        return (GIVEN,)
    if wanted.group is not None:
        return (_OF_GROUP,)
    if wanted.key is not None:
        return (_BY_KEY,)
    return _parts_of_tenant(wanted) if wanted.is_of_guest else _parts_of_all(wanted)


def _parts_of_tenant(wanted: Filter) -> tuple[Part, ...]:
    return (_LIVING_OF_TENANT if wanted.status in {"queued", "processing"} else _OF_TENANT,)


def _parts_of_all(wanted: Filter) -> tuple[Part, ...]:
    if wanted.has_several:
        return _parts_of_several(wanted)
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


def _parts_of_several(wanted: Filter) -> tuple[Part, ...]:
    """A part for each of several values, so that each is found by its index; together they have each job once."""
    statuses = wanted.statuses or ((wanted.status,) if wanted.status else (*ENDED, "queued", "processing"))
    living = {} if wanted.ends_within else {"queued": _QUEUED, "processing": _PROCESSING}
    parts = _parts_of_ended(wanted, [status for status in statuses if status in ENDED])
    parts += [replace(part, finds=_BY_STATES) for status, part in living.items() if status in statuses]
    return tuple(parts) or (_NONE,)


def _parts_of_ended(wanted: Filter, statuses: list[str]) -> list[Part]:
    if not statuses:
        return []
    if wanted.task or wanted.tasks:
        return _each("task", "tasks", len(wanted.tasks), _BY_TASK)
    if wanted.queue or wanted.of_queues:
        return _each("queue", "of_queues", len(wanted.of_queues), _BY_QUEUE)
    return [replace(_BY_STATUS, value=f"'{status}'", finds=_BY_STATES) for status in statuses]


def _each(column: str, several: str, count: int, one: Part) -> list[Part]:
    """A part for each value of a column."""
    finds = frozenset({column, several})
    if not count:
        return [replace(one, finds=finds)]
    return [
        replace(one, value=f"(CAST(:{several} AS text[]))[{number}]", finds=finds)
        for number in range(1, count + 1)
    ]
