"""The statements that store jobs, by what the jobs have: lines of the file that none of them needs are left out."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import product
from typing import NamedTuple

from sqlalchemy import text

from webapp.infra.postgres.engine import Statement
from webapp.infra.postgres.sql_files import of_rows, read_sql
from webapp.jobs.submission import NewJob

#: Longest that a group waits for a key, milliseconds: its other members are stored by themselves then.
GROUP_LOCK_TIMEOUT_MS = 50
_SHORT_WAIT = f"SET LOCAL lock_timeout = {GROUP_LOCK_TIMEOUT_MS}"

#: The marks of these lines, in the order of `Has`.
_MARKS = ("keyed", "terms", "as sent", "laned", "owned")


class Has(NamedTuple):
    """What some jobs have: what lines of a statement are for.

    Args:
        keyed: an idempotency key.
        terms: options of their own.
        as_sent: a payload to be kept as it was sent.
        laned: a lane.
        owned: a tenant beside the default one, a key of the API by which they came, or a group.
    """

    keyed: bool
    terms: bool
    as_sent: bool
    laned: bool
    owned: bool


def has_of(jobs: Sequence[NewJob], as_sent: Sequence[str | None]) -> Has:
    """What these jobs have.

    Args:
        as_sent: their payloads, as far as they are to be kept as they were sent.
    """
    return Has(
        any(job.idempotency_key is not None for job in jobs),
        any(job.terms is not None for job in jobs),
        any(as_sent),
        any(job.lane is not None for job in jobs),
        any(job.is_owned for job in jobs),
    )


def _statement(name: str, given: tuple[bool, ...]) -> str:
    """The statement without the lines of what no job has: one without pays for none."""
    absent = [mark for mark, is_given in zip(_MARKS, given, strict=True) if not is_given]
    return read_sql(__file__, "insert", name, without=absent)


_EACH = tuple(Has(*given) for given in product((False, True), repeat=len(_MARKS)))
#: The statement that stores one job, and the one that stores many.
INSERT_ONE = {given: Statement(_statement("one", given)) for given in _EACH}
INSERT_MANY = {given: text(_statement("many", given)) for given in _EACH}


@cache
def group_statement(rows: int, given: Has) -> Statement:
    """The statement that stores so many jobs; one that takes keys does not wait long for another that holds one."""
    insert = of_rows(_statement("one", given), rows)
    return Statement(f"{_SHORT_WAIT};\n{insert}" if given.keyed else insert)
