"""Reads a page of jobs: no larger than PAGE_BYTES, which is measured where the jobs are.

Like `webapp.jobs.store`, of which this is a part: functions take a connection and never commit.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cache
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, TextClause, text

from webapp.infra.postgres.literals import array_of
from webapp.jobs.columns import FIELDS, as_sent, columns_of
from webapp.jobs.filters import Filter, all_of
from webapp.jobs.model import JobRow
from webapp.jobs.search import LONGEST_END, Seen, search

#: Largest page, bytes of JSON; a first job that is larger is a page by itself.
PAGE_BYTES = 2 * 1024 * 1024
#: How many bits at the end of an id tell nothing but it from others.
RANDOM_BITS = 32
#: Jobs that are measured in one statement.
MEASURED_AT_ONCE = 100

#: The fields that may be large: how each is measured, and what stands for it where it was not asked for.
_LARGE = {
    "payload": (f"octet_length(CAST({as_sent('payload')} AS text))", "CAST('{}' AS json)"),
    "result": (f"octet_length(CAST({as_sent('result')} AS text))", "CAST(NULL AS json)"),
    "last_error": ("octet_length(last_error)", "CAST(NULL AS text)"),
}
#: The names of all fields that may be large.
LARGE = frozenset(_LARGE)
#: How many characters of a payload are its preview.
PREVIEW_CHARACTERS = 200
#: What is made of large fields for a list that asks for it. Sizes are what PostgreSQL keeps, so nothing is unpacked for them.
_TOLD = {
    "payload_preview": f"left(CAST({as_sent('payload', 'jobs')} AS text), {PREVIEW_CHARACTERS})",
    "payload_bytes": "pg_column_size(jobs.payload)",
    "result_bytes": "pg_column_size(jobs.result)",
}
#: The names of all fields that are read where they are asked for.
READ_IF_WANTED = LARGE | frozenset(_TOLD)


class Short(StrEnum):
    """Why a page has fewer jobs than it may."""

    #: The next job would have made it larger than `PAGE_BYTES`.
    BYTES = "bytes"
    #: The time of the search was over.
    TIME = "time"


@dataclass(frozen=True, slots=True)
class Page:
    """A page of jobs.

    Args:
        jobs: the newest first.
        total: how many jobs match.
        is_estimate: they were not counted to the end.
        next_before: the next page begins with what is older than this job; None after the last one.
        short: why there are fewer jobs than asked for although there may be more.
        searched_until: what is older than this job was not looked at; it need not match.
    """

    jobs: list[JobRow]
    total: int
    is_estimate: bool
    next_before: UUID | None
    short: Short | None = None
    searched_until: UUID | None = None

    def without_strangers(self) -> Page:
        """The same for a caller who may see no job but those of the page: how far a search came names no job. Pure."""
        if self.searched_until is None:
            return self
        until = place_of(self.searched_until)
        return replace(self, next_before=until, searched_until=until)


def place_of(job_id: UUID) -> UUID:
    """Where a job is in the order of ids, without its id: the last bits of an id are random, and before them no two are alike. Pure.

    Example:
        >>> str(place_of(UUID("01922d58-a3b8-7301-a3ad-b3e18ae54fa1")))
        '01922d58-a3b8-7301-a3ad-b3e100000000'
    """
    return UUID(int=job_id.int >> RANDOM_BITS << RANDOM_BITS)


#: Where nothing can match.
EMPTY = Page([], 0, is_estimate=False, next_before=None)

#: Where jobs lie that were seen a moment ago: only days between are planned.
_SEEN = """(jobs.finished_at IS NULL OR (jobs.finished_at >= :seen_since AND jobs.finished_at <= :seen_until)
             OR jobs.finished_at >= :seen_at)"""


@cache
def _fetch_by(names: frozenset[str], large: frozenset[str]) -> TextClause:
    """Jobs in the order of their ids in `:ids`, as many as fit; and how many more there are."""
    measured = " + ".join(f"coalesce({_LARGE[name][0]}, 0)" for name in sorted(large & LARGE)) or "0"
    told = [f"{_TOLD[name]} AS {name}" for name in sorted(large & frozenset(_TOLD))]
    columns = ", ".join(
        [
            f"{_LARGE[name][1]} AS {name}" if name in LARGE - large else columns_of([name], "jobs")
            for name in FIELDS
        ]
        + told
    )
    return text(f"""
        WITH measured AS MATERIALIZED (
            SELECT id, place, sum({measured}) OVER (ORDER BY place) AS bytes, row_number() OVER (ORDER BY place) AS number
              FROM unnest(CAST(:ids AS uuid[])) WITH ORDINALITY AS asked(asked_id, place) JOIN jobs ON id = asked_id
             WHERE {_SEEN} AND {all_of(names)}),
        fitting AS (SELECT id, place, bytes FROM measured WHERE bytes <= :room OR (number = 1 AND :is_first))
        SELECT {columns}, fitting.bytes, (SELECT count(*) FROM measured) - (SELECT count(*) FROM fitting)
          FROM fitting JOIN jobs ON jobs.id = fitting.id AND {_SEEN} ORDER BY fitting.place""")


def fetch(
    connection: Connection,
    ids: Sequence[UUID],
    large: Collection[str] = LARGE,
    *,
    seen: Seen | None,
    still: Mapping[str, Any] | None = None,
) -> tuple[list[JobRow], bool]:
    """The jobs of these ids, in their order, as many as fit into a page; and whether all of them fitted.

    Args:
        large: fields of `READ_IF_WANTED` that are wanted; of the others a job has none.
        seen: where they lay when they were found; None where there are none.
        still: conditions by name, which a job must still meet.
    """
    if seen is None:
        return [], True
    wanted = frozenset(large) & READ_IF_WANTED
    told = sorted(wanted & frozenset(_TOLD))
    statement = _fetch_by(frozenset(still or ()), wanted)
    room = PAGE_BYTES
    jobs: list[JobRow] = []
    for first in range(0, len(ids), MEASURED_AT_ONCE):
        given = {
            **(still or {}),
            "seen_since": seen.since,
            "seen_until": seen.until,
            "seen_at": seen.at - LONGEST_END,
            "ids": array_of(ids[first : first + MEASURED_AT_ONCE]),
            "room": room,
            "is_first": not jobs,
        }
        rows = connection.execute(statement, given).all()
        jobs += [_with(JobRow.of(row[: len(FIELDS)]), told, row[len(FIELDS) :]) for row in rows]
        room -= int(rows[-1][-2]) if rows else 0
        if rows and rows[-1][-1]:
            return jobs, False
    return jobs, True


def _with(job: JobRow, names: Sequence[str], values: Sequence[Any]) -> JobRow:
    """A job with what was made for its list."""
    return replace(job, **dict(zip(names, values, strict=False))) if names else job


def page(
    connection: Connection,
    wanted: Filter,
    *,
    limit: int,
    offset: int = 0,
    before: UUID | None = None,
    large: Collection[str] = LARGE,
) -> Page:
    """Jobs from the newest on, and how many there are in all.

    Args:
        limit: most jobs.
        offset: matching jobs that are passed over.
        before: only jobs older than this one.
        large: fields that may be large and are wanted.
    """
    found = search(connection, wanted, limit=limit, offset=offset, before=before)
    jobs, fits = fetch(connection, found.ids, large, seen=found.seen, still=wanted.values())
    if not fits:
        return Page(jobs, found.total, found.is_estimate, jobs[-1].id, Short.BYTES)
    if len(found.ids) == limit:
        return Page(jobs, found.total, found.is_estimate, found.ids[-1])
    if found.reached is not None:
        return Page(jobs, found.total, found.is_estimate, found.reached, Short.TIME, found.reached)
    return Page(jobs, found.total, found.is_estimate, None)
