"""The store's statements that make a job which was never started what a later submission of its unique key asks for.

Like `webapp.jobs.store`, of which this is a part: functions take a connection and never commit. The job's history has no place for what it was
before: a client that wants to keep each payload submits a job for each.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, text

from webapp.flow.tenant import told
from webapp.infra.postgres.literals import kept_as_sent, optional_array_of, text_array_of
from webapp.infra.postgres.sql_files import read_sql
from webapp.jobs import insert
from webapp.jobs.model import JobRow
from webapp.jobs.options import PLAIN
from webapp.jobs.submission import NewJob

_HOLD, _REPLACE = (text(read_sql(__file__, "replace", name)) for name in ("hold", "replace"))


class Replaced(NamedTuple):
    """A job that is what a later submission asked for.

    Args:
        job: as it stands now.
        is_told: workers are to be told of it.
    """

    job: JobRow
    is_told: bool


class Changed(NamedTuple):
    """What a submission does not know of the job that it has replaced.

    Args:
        is_told: as in `Replaced`.
    """

    is_told: bool
    created_at: datetime
    updated_at: datetime
    run_at: datetime
    expires_at: datetime | None
    dispatched_at: datetime | None
    idempotency_key: str | None

    def replaced(self, job: NewJob) -> Replaced:
        """The job as it stands now: all else is what was asked, and reading it back would be another exchange. Pure.

        Args:
            job: what it is.
        """
        asked = insert.new_row(job, self.created_at, self.dispatched_at, self.run_at, self.expires_at)
        own = self.idempotency_key and told(self.idempotency_key)
        row = replace(asked, updated_at=self.updated_at, idempotency_key=own)
        return Replaced(row, self.is_told)


def hold(connection: Connection, keys: Iterable[str]) -> None:
    """Keeps the holders of unique keys from their first start, until this transaction ends; those that have begun go on."""
    connection.execute(_HOLD, {"keys": text_array_of(keys)})


def replace_jobs(
    connection: Connection, changes: Mapping[UUID, NewJob], *, dispatched: bool
) -> dict[UUID, Changed]:
    """Makes jobs what later submissions ask for, except those that have begun.

    Args:
        changes: by the job's id, what it is from now on.
        dispatched: the caller publishes messages right after the commit, for the jobs that are due.

    Returns:
        Those that were changed, by their ids.
    """
    changed: dict[UUID, Changed] = {}
    for some in insert.in_statements(list(changes.values())) if changes else ():
        changed |= _replace_some(connection, some, dispatched=dispatched)
    return changed


def _replace_some(connection: Connection, jobs: Sequence[NewJob], *, dispatched: bool) -> dict[UUID, Changed]:
    rows = connection.execute(_REPLACE, _values_of(jobs) | {"dispatched": dispatched})
    return {row[0]: Changed(*row[1:]) for row in rows}


def _values_of(jobs: Sequence[NewJob]) -> dict[str, Any]:
    of_all = insert.plain_values(jobs) | insert.term_values([job.terms or PLAIN for job in jobs])
    return of_all | {
        "as_sent": text_array_of(kept_as_sent(job.payload) for job in jobs),
        "max_waits": optional_array_of(job.unique.max_wait if job.unique else None for job in jobs),
        "lanes": optional_array_of(job.lane for job in jobs),
    }
