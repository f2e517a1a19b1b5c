"""Runs the statements of flow control: the rules in force, how queues and tasks stand, the record of changes.

Functions take a connection and never commit.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, TextClause, text

from webapp.flow.admission import Bounds
from webapp.flow.limits import KeyOrder, Limits, QueueLimits, Rate
from webapp.flow.model import FlowChange, FlowRules, FlowState, KeyTarget, Kind, Pause, Target
from webapp.flow.reach import Reach
from webapp.flow.reached import Reached, reach_values
from webapp.infra.postgres.engine import Statement
from webapp.infra.postgres.literals import text_array_of
from webapp.infra.postgres.sql_files import read_sql


class _OfKind(NamedTuple):
    """The statements about one kind of target."""

    find: TextClause
    all: TextClause
    make: TextClause
    lock: TextClause
    set: TextClause
    limit: TextClause


_OF = {
    kind: _OfKind(
        *(text(read_sql(__file__, file, name)) for name in ("find", "all", "make", "lock", "set", "limit"))
    )
    for kind, file in ((Kind.QUEUE, "queues"), (Kind.TASK, "tasks"))
}
_RULES = Statement(read_sql(__file__, "rules"))
#: Longest that a change waits for its target's row, milliseconds.
LOCK_TIMEOUT_MS = 3_000
_PATIENCE = text(f"SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}")
#: What a rule's row may say of its name.
_RULE_SETS = tuple(FlowRules.__dataclass_fields__)
_PAUSES = text(read_sql(__file__, "pauses"))
_NOTE, _PRUNE = (text(read_sql(__file__, "changes", name)) for name in ("note", "prune"))
_PAGE = Reached(__file__, "changes", "page")


def rules(connection: Connection) -> FlowRules:
    """The rules in force."""
    found: dict[str, set[str]] = {state: set() for state in _RULE_SETS}
    for state, name in _RULES.run(connection, {}).rows:
        found[state].add(name)
    return FlowRules(**{state: frozenset(names) for state, names in found.items()})


def pauses_of(connection: Connection, queue: str, task: str) -> dict[Target, Pause]:
    """The pauses that hold a job of this queue and task."""
    rows = connection.execute(_PAUSES, {"queue": queue, "task": task})
    return {Target(Kind(row[0]), row[1]): Pause(*row[2:]) for row in rows}


def find(connection: Connection, target: Target) -> FlowState | None:
    """How a target stands; None where it was never changed."""
    row = connection.execute(_OF[target.kind].find, {"name": target.name}).first()
    return _state(row) if row is not None else None


def changed(connection: Connection, kind: Kind) -> dict[str, FlowState]:
    """How those of a kind stand that were ever changed, by name."""
    return {row[0]: _state(row) for row in connection.execute(_OF[kind].all)}


def lock(connection: Connection, target: Target) -> FlowState:
    """How a target stands; until the transaction ends no one else changes it.

    Every claim from its lanes holds its row for a moment: on a busy machine this waits its turn longer than other statements.
    """
    connection.execute(_PATIENCE)
    connection.execute(_OF[target.kind].make, {"name": target.name})
    return _state(connection.execute(_OF[target.kind].lock, {"name": target.name}).one())


def set_pause(
    connection: Connection, target: Target, *, paused: bool, by: str | None, why: str | None
) -> FlowState:
    """Pauses a target that was locked, or resumes it; returns how it stands then.

    Args:
        by, why: of a pause, shown while it lasts.
    """
    values = {"name": target.name, "paused": paused, "by": by, "why": why}
    return _state(connection.execute(_OF[target.kind].set, values).one())


def _state(row: Sequence[Any]) -> FlowState:
    at: datetime | None = row[1]
    order = None if row[14] is None else KeyOrder(row[14])
    bounds = Bounds(*row[16:19])
    limits = QueueLimits(
        _limits(row[5:9]), _limits(row[9:13]), fair=row[13], key_order=order, ageing=row[15], bounds=bounds
    )
    return FlowState(row[0], None if at is None else Pause(at, row[2], row[3]), row[4], limits)


def _limits(columns: Sequence[Any]) -> Limits:
    concurrency, limit, per, burst = columns
    return Limits(concurrency, None if limit is None else Rate(limit, per, burst))


def set_limits(connection: Connection, target: Target, limits: QueueLimits) -> FlowState:
    """Gives a target that was locked these limits; returns how it stands then."""
    values = {
        "name": target.name,
        "is_limited": limits.hold_jobs,
        "fair": limits.fair,
        "key_order": limits.key_order,
        "ageing": limits.ageing,
        "max_depth": limits.bounds.max_depth,
        "max_age": limits.bounds.max_age,
        "key_max_depth": limits.bounds.key_max_depth,
        **_values(limits.all, ""),
        **_values(limits.keys, "key_"),
    }
    return _state(connection.execute(_OF[target.kind].limit, values).one())


def _values(limits: Limits, prefix: str) -> dict[str, Any]:
    rate = limits.rate
    return {
        f"{prefix}concurrency": limits.concurrency,
        f"{prefix}rate_limit": rate.limit if rate else None,
        f"{prefix}rate_per": rate.per if rate else None,
        f"{prefix}rate_burst": rate.burst if rate else None,
    }


def note_change(
    connection: Connection,
    target: Target | KeyTarget,
    *,
    who: str | None,
    old: Mapping[str, Any],
    new: Mapping[str, Any],
    why: str | None,
) -> None:
    """Puts a change on record."""
    values = {"who": who, "target": str(target), "old": json.dumps(old), "new": json.dumps(new), "why": why}
    connection.execute(_NOTE, values)


def changes(
    connection: Connection, target: str | None, reach: Reach, *, before: int | None, limit: int
) -> list[FlowChange]:
    """The changes on record, the newest first: to what is reached.

    Args:
        target: only those of this one.
        before: only those with a smaller id.
    """
    values = {"target": target, "before": before, "limit": limit} | reach_values(reach)
    values |= {"slug": reach.home.slug, "others": text_array_of(reach.others)}
    rows = connection.execute(_PAGE.by(reach), values)
    return [FlowChange(*row) for row in rows]


def prune_changes(connection: Connection, *, days: int, limit: int) -> int:
    """Deletes the oldest changes that are older than so many days; returns how many."""
    return connection.execute(_PRUNE, {"days": days, "limit": limit}).rowcount
