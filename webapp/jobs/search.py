"""Looks for jobs from the newest on, for a bounded time, and says how far it came.

Like `webapp.jobs.store`, of which this is a part: functions take a connection and never commit. No statement here looks at
more than a slice of the table: a filter that no index answers would else read a backlog of millions for one page. A search goes
on slice by slice while its time lasts; the next one begins where it ended.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache, reduce
from operator import or_
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, TextClause, text
from sqlalchemy.exc import DBAPIError

from webapp.infra.postgres.database_errors import Trouble, trouble_of
from webapp.infra.postgres.literals import array_of
from webapp.infra.postgres.sql_files import read_sql
from webapp.jobs import retention, windows
from webapp.jobs.filters import CONDITIONS, GIVEN, Filter, Part, all_of, parts_of
from webapp.jobs.windows import Window

#: Jobs that the first slice of a search looks at; payloads of 256 KiB are 50 MB then.
FIRST_SLICE = 200
#: Most jobs that a slice looks at.
LARGEST_SLICE = 20_000
#: Most jobs that a slice passes over where all of them match.
LARGEST_LEAP = 200_000
#: How much larger than the one before a slice is, at most.
GROWTH = 8
#: How long a slice should take, seconds.
SLICE_SECONDS = 0.1
#: How long a slice may take, milliseconds: one with payloads of many megabytes is ended, and tried again with fewer jobs.
SLICE_TIMEOUT_MS = 300
#: How long a page is searched for, seconds.
PAGE_SECONDS = 0.8
#: How long is counted, seconds; from there on the total is an estimate.
COUNT_SECONDS = 0.4
#: Up to here jobs are counted one by one.
COUNTED_UP_TO = 10_000
#: A job that ends says that it ended when the transaction began that ends it: longer ago than this it did not begin.
LONGEST_END = timedelta(hours=1)
#: Jobs with these tags are read all at once when there are no more of them.
FEW = 2_000


@dataclass(frozen=True, slots=True)
class Found:
    """What a search came to.

    Args:
        ids: of the jobs of this page, the newest first.
        reached: what is older than this one was not looked at; None when everything was.
        total: how many jobs match, wherever the page begins.
        is_estimate: it was not counted to the end.
        seen: where they lay; None where there is none.
    """

    ids: list[UUID]
    reached: UUID | None
    total: int
    is_estimate: bool
    seen: Seen | None


@dataclass(frozen=True, slots=True)
class Seen:
    """Where jobs that were seen lie by now: among those that live, where they were, or among those that ended since.

    Args:
        since: when the first of those that had ended did, ...
        until: ... and the last.
        at: when they were seen, by PostgreSQL's clock.
    """

    since: datetime
    until: datetime
    at: datetime

    def __or__(self, other: Seen) -> Seen:
        """Where those of both lie."""
        return Seen(min(self.since, other.since), max(self.until, other.until), min(self.at, other.at))


class _Slice(NamedTuple):
    """What one statement saw: how many match, those of them that were asked for, and the oldest that it looked at."""

    reached: UUID | None
    matching: int
    ids: list[UUID]
    since: datetime
    until: datetime
    at: datetime

    @property
    def seen(self) -> Seen:
        """Where the jobs that were asked for lay."""
        return Seen(self.since, self.until, self.at)


def _looked_at(number: int, part: Part, names: frozenset[str]) -> str:
    return f"""looked{number} AS MATERIALIZED (
        SELECT id, finished_at, {all_of(part.rest(names))} AS matches
          FROM (SELECT * FROM {part.rows} WHERE {part.bounds(names)} ORDER BY {part.order} LIMIT :size) AS part)"""


@cache
def _slice_by(names: frozenset[str], parts: tuple[Part, ...]) -> TextClause:
    """One slice of each part. The newest of their ends is how far the slice reaches: there all of them were looked at."""
    looked = ", ".join(_looked_at(number, part, names) for number, part in enumerate(parts))
    ends = " UNION ALL ".join(
        f"(SELECT id FROM looked{number} WHERE (SELECT count(*) FROM looked{number}) = :size ORDER BY id LIMIT 1)"
        for number in range(len(parts))
    )
    matching = " UNION ALL ".join(
        f"SELECT id, finished_at FROM looked{number} WHERE matches" for number in range(len(parts))
    )
    # Both statements are one message, and so one transaction where none was begun.
    return text(f"""
        SET LOCAL statement_timeout = {SLICE_TIMEOUT_MS};
        WITH {looked},
        reached AS (SELECT id FROM ({ends}) AS ends ORDER BY id DESC LIMIT 1),
        matching AS (SELECT id, finished_at FROM ({matching}) AS together
                      WHERE id >= coalesce((SELECT id FROM reached), '00000000-0000-0000-0000-000000000000')),
        wanted AS (SELECT id, finished_at FROM matching ORDER BY id DESC OFFSET :skip LIMIT :want)
        SELECT (SELECT id FROM reached), (SELECT count(*) FROM matching), ARRAY(SELECT id FROM wanted ORDER BY id DESC),
               coalesce((SELECT min(finished_at) FROM wanted), now()), coalesce((SELECT max(finished_at) FROM wanted), now()),
               now()""")


class _Walk:
    """Goes through what may match from the newest job on, slice by slice.

    Args:
        before: begins with what is older than this one.

    `is_search` says that what it looks at need not match.
    """

    def __init__(self, connection: Connection, wanted: Filter, few: _Few | None, before: UUID | None) -> None:
        self._connection = connection
        self._values = wanted.values()
        self._parts = parts_of(wanted) if few is None else (GIVEN,)
        if few is not None:
            self._values |= {"few": array_of(few.ids), "few_from": few.since}
        self._to = min((one for one in (before, self._values.get("to_id")) if one is not None), default=None)
        self.is_search = (
            few is not None
            or wanted.is_search
            or any("default_tenant" in part.rest(frozenset(self._values)) for part in self._parts)
        )
        self._size = FIRST_SLICE
        self._width = windows.FIRST
        self._is_begun = self._is_at_end_of_window = False

    def slices(self, skip: int, want: int, seconds: float, enough: int) -> Iterator[_Slice]:
        """Slices until all was looked at, `enough` jobs match, or the time is over and a slice was full.

        Where the time is over at the end of a window that had no more, the next one is looked at all the same: there are three at
        most, and a search that goes on from there would begin with a short one again.

        Args:
            skip: matching jobs that are passed over, ...
            want: ... and then given, over all slices.
        """
        end = time.monotonic() + seconds
        matching = given = 0
        while True:
            if not self.is_search:
                # All that it looks at matches.
                self._size = min(max(enough - matching, 1), LARGEST_LEAP)
            began = time.monotonic()
            try:
                one = self._next(max(0, skip - matching), want - given)
            except DBAPIError as error:
                if trouble_of(error) is not Trouble.SLOW or self._size == 1:
                    raise
                if time.monotonic() >= end:
                    if self._is_begun:
                        return
                    raise
                self._size = max(1, self._size // GROWTH)
                continue
            yield one
            matching, given = matching + one.matching, given + len(one.ids)
            if one.reached is None:
                return
            self._to = one.reached
            now = time.monotonic()
            if matching >= enough or (now >= end and not self._is_at_end_of_window):
                return
            self._is_begun = True
            fits = int(self._size * SLICE_SECONDS / max(now - began, 0.001))
            self._size = max(1, min(fits, self._size * GROWTH, LARGEST_SLICE))

    def _next(self, skip: int, want: int) -> _Slice:
        window = _window(self._parts, self._values, self._to, self._width)
        values = self._values | _bounds_of(window) | ({} if self._to is None else {"to_id": self._to})
        names = frozenset(values) - {"few", "few_from"}
        given = values | {"size": self._size, "skip": skip, "want": want}
        found = _Slice(*self._connection.execute(_slice_by(names, self._parts), given).one())
        self._is_at_end_of_window = found.reached is None and window.from_id is not None
        if not self._is_at_end_of_window:
            return found
        self._width *= windows.GROWTH
        return found._replace(reached=window.from_id)


def _window(parts: tuple[Part, ...], values: dict[str, Any], to: UUID | None, width: timedelta) -> Window:
    """What the next statement looks at; parts that live are looked at to their end."""
    if not any(part.is_of_history for part in parts):
        return windows.ALL
    return windows.before(to, width, values.get("from_id"))


def _bounds_of(window: Window) -> dict[str, Any]:
    """The values of a window's conditions, by name."""
    bounds: dict[str, Any] = {} if window.from_id is None else {"from_id": window.from_id}
    return bounds if window.ended_from == retention.BEGINNING else bounds | {"ended_from": window.ended_from}


class _Few(NamedTuple):
    """Jobs that were found by an index without an order, and when the first of them had ended."""

    ids: list[UUID]
    since: datetime


_TAGGED = text(read_sql(__file__, "tagged"))


_OWNER = text(read_sql(__file__, "keys", "owner"))


def _few(connection: Connection, wanted: Filter) -> _Few | None:
    """The jobs that were named one by one, or by what few have; None where that says nothing."""
    ids = wanted.ids
    if ids is None and wanted.idempotency_key is not None:
        ids = tuple(connection.execute(_OWNER, {"key": wanted.idempotency_key}).scalars())
    if ids is None:
        return _few_tagged(connection, wanted)
    return _Few(list(ids), retention.may_end_from(*ids) if ids else retention.BEGINNING)


def _few_tagged(connection: Connection, wanted: Filter) -> _Few | None:
    """The jobs with the wanted tags, when they are few; their index has no order, so of many the newest are not known."""
    if not wanted.tags:
        return None
    values = wanted.values()
    from_id = values.get("from_id")
    ended_from = retention.BEGINNING if from_id is None else retention.may_end_from(from_id)
    given = {"tags": values["tags"], "ended_from": ended_from, "limit": FEW + 1}
    rows = connection.execute(_TAGGED, given).all()
    if len(rows) > FEW:
        return None
    first = min((row[1] for row in rows), default=datetime.now(UTC))
    return _Few([row[0] for row in rows], first - LONGEST_END)


def _page_of(looked: Sequence[_Slice]) -> tuple[list[UUID], Seen | None]:
    """The jobs that slices have found for a page, and where these lay; None where there are none."""
    places = [one.seen for one in looked if one.ids]
    return [job_id for one in looked for job_id in one.ids], reduce(or_, places) if places else None


def search(
    connection: Connection, wanted: Filter, *, limit: int, offset: int = 0, before: UUID | None = None
) -> Found:
    """Looks for a page of jobs, the newest first, and counts those that match.

    Args:
        limit: most jobs of the page.
        offset: matching jobs that are passed over.
        before: only jobs older than this one; costs the same however far back it is, which `offset` does not.
    """
    few = _few(connection, wanted)
    walk = _Walk(connection, wanted, few, before)
    looked = list(walk.slices(offset, limit, PAGE_SECONDS, offset + limit))
    ids, seen = _page_of(looked)
    matching, reached = sum(one.matching for one in looked), looked[-1].reached
    if before is not None:
        walk, matching = _Walk(connection, wanted, few, None), 0
        is_counted = False
    else:
        is_counted = reached is None
    if not is_counted and not wanted.is_search and not wanted.is_of_few:
        matching, is_whole = _count(connection, wanted)
        is_counted = is_whole and matching <= COUNTED_UP_TO
    elif not is_counted and matching <= COUNTED_UP_TO:
        for one in walk.slices(0, 0, COUNT_SECONDS, COUNTED_UP_TO + 1 - matching):
            matching += one.matching
            is_counted = one.reached is None
    if is_counted:
        return Found(ids, reached, matching, is_estimate=False, seen=seen)
    # What is expected of one tenant would tell of all others: theirs are counted, and no more is said than that there are as many.
    total = matching if wanted.is_of_guest else max(matching, _expected(connection, wanted))
    return Found(ids, reached, total, is_estimate=True, seen=seen)


@cache
def _count_by(names: frozenset[str], parts: tuple[Part, ...]) -> TextClause:
    # The order is for the planner: without it a few jobs are thought to be found soon in whole days that lie before the window.
    is_shared = "default_tenant" in names
    column = "tenant_id" if is_shared else "1"
    counted = " UNION ALL ".join(
        f"(SELECT {column} FROM {part.rows} WHERE {part.bounds(names)} ORDER BY {part.order} LIMIT {COUNTED_UP_TO + 1})"
        for part in parts
    )
    own = f"count(*) FILTER (WHERE {CONDITIONS['default_tenant']})" if is_shared else "count(*)"
    return text(f"SELECT {own}, count(*) FROM ({counted}) AS counted")


def _count(connection: Connection, wanted: Filter) -> tuple[int, bool]:
    """How many jobs match, and whether all were looked at: up to one beyond `COUNTED_UP_TO`; for what indexes answer alone.

    Where the default tenant shares the table with others, their jobs are looked at as well.
    """
    values, parts = wanted.values(), parts_of(wanted)
    to, width, counted, looked_at = values.get("to_id"), windows.FIRST, 0, 0
    while looked_at <= COUNTED_UP_TO:
        window = _window(parts, values, to, width)
        given = values | _bounds_of(window) | ({} if to is None else {"to_id": to})
        statement = _count_by(frozenset(given), parts)
        own, looked = connection.execute(statement, given).one()
        counted, looked_at = counted + own, looked_at + looked
        if window.from_id is None:
            break
        to, width = window.from_id, width * windows.GROWTH
    return counted, looked_at <= COUNTED_UP_TO


_HISTORY_ROWS = text(read_sql(__file__, "history_rows"))


@cache
def _plan_by(names: frozenset[str], rows: str) -> TextClause:
    return text(f"EXPLAIN (FORMAT JSON) SELECT 1 FROM {rows} WHERE {all_of(names)}")


def _planned(connection: Connection, values: dict[str, Any], rows: str) -> int:
    """How many rows PostgreSQL's statistics let expect."""
    plan: Any = connection.execute(_plan_by(frozenset(values), rows), values).scalar_one()
    return int((json.loads(plan) if isinstance(plan, str) else plan)[0]["Plan"]["Plan Rows"])


def _expected(connection: Connection, wanted: Filter) -> int:
    """How many jobs match by the planner's statistics: of history those of the last days, and all others are taken to be like them."""
    values = wanted.values()
    if "from_id" in values:
        return _planned(
            connection, values | {"ended_from": retention.may_end_from(values["from_id"])}, "jobs"
        )
    if "to_id" in values:
        return _planned(connection, values, "jobs")
    living = _planned(connection, values, "jobs_living")
    if not any(part.is_of_history for part in parts_of(wanted)):
        return living
    lately = {"ended_after": windows.before(None, windows.FIRST).ended_from}
    days, all_days = _planned(connection, lately, "jobs"), connection.execute(_HISTORY_ROWS).scalar_one()
    return living + int(_planned(connection, values | lately, "jobs") * max(1.0, all_days / max(1, days)))
