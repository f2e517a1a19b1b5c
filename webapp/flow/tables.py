"""The tables of flow control: what is paused and limited, lanes, and the record of changes."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Boolean, Column, Double, Identity, Index, Integer, Table, Text, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.types import BigInteger

from webapp.infra.postgres.base import TIME, Base


class _Paused:
    """What can be paused; one that never was has no row."""

    #: NULL: it is not paused.
    paused_at: Mapped[datetime | None] = mapped_column(TIME)
    paused_by: Mapped[str | None] = mapped_column(Text)
    paused_why: Mapped[str | None] = mapped_column(Text)
    #: Grows with each change.
    version: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    updated_at: Mapped[datetime] = mapped_column(TIME, server_default=func.now())


class _Limited:
    """What can be limited; NULL: it is not."""

    concurrency: Mapped[int | None] = mapped_column(Integer)
    rate_limit: Mapped[int | None] = mapped_column(Integer)
    rate_per: Mapped[float | None] = mapped_column(Double)
    rate_burst: Mapped[int | None] = mapped_column(Integer)
    #: When the rate's next start is due, seconds of the epoch.
    next_start: Mapped[float] = mapped_column(Double, server_default=text("0"))
    is_limited: Mapped[bool] = mapped_column(Boolean, server_default=text("false"))
    #: Some of its jobs may lie in lanes.
    has_lanes: Mapped[bool] = mapped_column(Boolean, server_default=text("false"))


class Queue(_Paused, _Limited, Base):
    """A queue whose flow was ever changed; its row is the gate of every claim from its lanes."""

    __tablename__ = "queues"

    name: Mapped[str] = mapped_column(Text, primary_key=True)
    key_concurrency: Mapped[int | None] = mapped_column(Integer)
    key_rate_limit: Mapped[int | None] = mapped_column(Integer)
    key_rate_per: Mapped[float | None] = mapped_column(Double)
    key_rate_burst: Mapped[int | None] = mapped_column(Integer)
    fair: Mapped[bool] = mapped_column(Boolean, server_default=text("false"))
    #: `fifo`: the jobs of a key run strictly one after the other.
    key_order: Mapped[str | None] = mapped_column(Text)
    #: Seconds that a step of priority is worth.
    ageing: Mapped[float | None] = mapped_column(Double)
    #: Up to where it takes submissions; NULL: there is no bound.
    max_depth: Mapped[int | None] = mapped_column(Integer)
    max_age: Mapped[float | None] = mapped_column(Double)
    key_max_depth: Mapped[int | None] = mapped_column(Integer)


class QueueLook(Base):
    """The last look at a queue that takes submissions up to a bound; all times are seconds of the epoch."""

    __tablename__ = "queue_looks"

    queue: Mapped[str] = mapped_column(Text, primary_key=True)
    #: 0: it was not looked at yet.
    at: Mapped[float] = mapped_column(Double, server_default=text("0"))
    took: Mapped[float] = mapped_column(Double, server_default=text("0"))
    depth: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    oldest: Mapped[float] = mapped_column(Double, server_default=text("0"))
    old_since: Mapped[float | None] = mapped_column(Double)
    too_old: Mapped[bool] = mapped_column(Boolean, server_default=text("false"))
    full_since: Mapped[float | None] = mapped_column(Double)
    drain: Mapped[float] = mapped_column(Double, server_default=text("0"))
    surplus: Mapped[int] = mapped_column(Integer, server_default=text("0"))


class _Rated:
    """What may have the rate of a single key; NULL: it goes by that of every key of its queue."""

    rate_limit: Mapped[int | None] = mapped_column(Integer)
    rate_per: Mapped[float | None] = mapped_column(Double)
    rate_burst: Mapped[int | None] = mapped_column(Integer)


class KeyLimit(_Paused, _Rated, Base):
    """A key of a queue that has limits of its own."""

    __tablename__ = "key_limits"

    queue: Mapped[str] = mapped_column(Text, primary_key=True)
    key: Mapped[str] = mapped_column(Text, primary_key=True)
    concurrency: Mapped[int | None] = mapped_column(Integer)
    weight: Mapped[float] = mapped_column(Double, server_default=text("1"))


class Lane(_Rated, Base):
    """Where the jobs of one queue, key and task wait while there are limits."""

    __tablename__ = "lanes"

    lane: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    task: Mapped[str] = mapped_column(Text, primary_key=True)
    queue: Mapped[str] = mapped_column(Text)
    key: Mapped[str] = mapped_column(Text)
    state: Mapped[str] = mapped_column(Text)
    turn: Mapped[float] = mapped_column(Double)
    ready_at: Mapped[datetime | None] = mapped_column(TIME)
    timeout: Mapped[float] = mapped_column(Double)
    weight: Mapped[float] = mapped_column(Double, server_default=text("1"))
    concurrency: Mapped[int | None] = mapped_column(Integer)

    __table_args__ = (
        Index("lanes_ready", "queue", "task", "turn", "lane", postgresql_where=text("state = 'ready'")),
        Index("lanes_timed", "queue", "ready_at", postgresql_where=text("state = 'timed'")),
        Index("lanes_full", "queue", "lane", postgresql_where=text("state = 'full'")),
        Index("lanes_idle", "queue", "turn", postgresql_where=text("state = 'idle'")),
        Index("lanes_of_task", "task", "queue"),
    )


class LaneTurn(Base):
    """How far the turns of the lanes of a queue and task are."""

    __tablename__ = "lane_turns"

    queue: Mapped[str] = mapped_column(Text, primary_key=True)
    task: Mapped[str] = mapped_column(Text, primary_key=True)
    turn: Mapped[float] = mapped_column(Double, server_default=text("0"))


class LaneRate(Base):
    """When the next start of a key is due, seconds of the epoch."""

    __tablename__ = "lane_rates"

    lane: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    next_start: Mapped[float] = mapped_column(Double)


#: Calls of lanes to which jobs have come. Rows are only added by those who bring jobs, so none of them waits for another.
lane_wakeups = Table(
    "lane_wakeups",
    Base.metadata,
    *(Column(name, Text, nullable=False) for name in ("queue", "task", "key")),
    Column("lane", BigInteger, nullable=False),
    Column("timeout", Double, nullable=False),
    Index("lane_wakeups_by_queue", "queue"),
)


class TaskLimit(_Paused, _Limited, Base):
    """A task whose flow was ever changed."""

    __tablename__ = "task_limits"

    task: Mapped[str] = mapped_column(Text, primary_key=True)
    #: Some of its jobs may be set aside: their `dispatched_at` is infinity, so that no one looks at them for their turn.
    has_aside: Mapped[bool] = mapped_column(Boolean, server_default=text("false"))


class FlowChange(Base):
    """A change of flow on record; `target` is such as `queues/default`."""

    __tablename__ = "flow_changes"

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    at: Mapped[datetime] = mapped_column(TIME, server_default=func.now())
    who: Mapped[str | None] = mapped_column(Text)
    target: Mapped[str] = mapped_column(Text)
    old: Mapped[dict[str, Any]] = mapped_column(JSONB)
    new: Mapped[dict[str, Any]] = mapped_column(JSONB)
    why: Mapped[str | None] = mapped_column(Text)

    __table_args__ = (Index("flow_changes_by_target", "target", "id"),)
