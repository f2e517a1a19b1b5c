"""Runs the statements about batches for those who ask: one, a page, what its members are. What is out of reach is not there.

Functions take a connection and never commit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, text

from webapp.batches.explain import COUNTED_UP_TO, Unfinished
from webapp.batches.model import BatchRow, Pace, Status
from webapp.flow.reach import Reach
from webapp.flow.reached import Reached
from webapp.flow.tenant import DEFAULT_SLUG
from webapp.groups.model import Totals
from webapp.infra.postgres.sql_files import read_sql

_FIND, _PAGE = (Reached(__file__, "listing", name) for name in ("find", "page"))
_WATCH, _UNFINISHED = (text(read_sql(__file__, "listing", name)) for name in ("watch", "unfinished"))
#: What a statement gives of a batch: the counts of its totals stand in the place of these.
_FIELDS = tuple(one.name for one in fields(BatchRow))
_COUNTS, _COUNTED = _FIELDS.index("totals"), len(Totals._fields)
#: After all ids.
LAST = UUID(int=2**128 - 1)


def _values(reach: Reach) -> dict[str, Any]:
    """The values of the lines that narrow a statement: a key of some queues sees what it has made itself."""
    values: dict[str, Any] = {} if reach.number is None else {"tenant": reach.number}
    return values if reach.queues is None else values | {"key": reach.key}


def batch_of(row: Row[Any] | Sequence[Any]) -> BatchRow:
    """The batch of a row."""
    columns = (*row[:_COUNTS], Totals(*row[_COUNTS : _COUNTS + _COUNTED]), *row[_COUNTS + _COUNTED :])
    own = dict(zip(_FIELDS, columns, strict=True))
    own |= {
        "status": Status(own["status"]),
        "pace": Pace.of(own["pace"]),
        "tenant": own["tenant"] or DEFAULT_SLUG,
    }
    return BatchRow(**own)


def find(connection: Connection, batch_id: UUID, reach: Reach) -> BatchRow | None:
    """A batch; None where there is none of this id within reach."""
    row = connection.execute(_FIND.by(reach), _values(reach) | {"id": batch_id}).first()
    return None if row is None else batch_of(row)


def page(
    connection: Connection,
    reach: Reach,
    *,
    status: Status | None,
    name: str | None,
    parent: UUID | None,
    before: UUID | None,
    limit: int,
) -> list[BatchRow]:
    """Batches from the newest on, without what they were made with.

    Args:
        status, name, parent: only those of these; None stands for any.
        before: only those older than this one.
    """
    values = _values(reach) | {
        "status": status and status.value,
        "name": name,
        "parent": parent,
        "before": before or LAST,
        "limit": limit,
    }
    return [batch_of(row) for row in connection.execute(_PAGE.by(reach), values)]


def watch(connection: Connection, batch_id: UUID) -> None:
    """Has a batch tell of its changes from now on."""
    connection.execute(_WATCH, {"id": batch_id})


def unfinished(connection: Connection, batch_id: UUID) -> Unfinished:
    """What of a batch has not ended, counted up to a bound."""
    row = connection.execute(_UNFINISHED, {"id": batch_id, "most": COUNTED_UP_TO + 1}).one()
    return Unfinished(*row)
