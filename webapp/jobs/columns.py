"""What to select for a job's fields where a statement is built from parts: JSON as it was given, also where `jsonb` would give
it back otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields

from webapp.jobs.model import JobRow

#: What is in another table, and read for a single job alone.
OF_ONE = "unique_key"
#: What is made for a list that asks for it.
OF_LISTS = ("payload_preview", "payload_bytes", "result_bytes")
#: The name of a job's tenant; NULL for the default one, which costs no look.
_TENANT = "CASE WHEN {before}tenant_id <> 1 THEN (SELECT slug FROM tenants WHERE tenants.id = {before}tenant_id) END AS tenant"
#: The columns of a `JobRow`, in its order.
FIELDS = tuple(field.name for field in fields(JobRow) if field.name not in {OF_ONE, *OF_LISTS})


def as_sent(column: str, table: str = "") -> str:
    """What to select for `payload` or `result`: the value as it was given.

    Args:
        column: its name.
        table: what stands before it where another table has such a column too.

    Example:
        >>> as_sent("payload", "jobs")
        'coalesce(jobs.payload_as_sent, CAST(jobs.payload AS json))'
    """
    name = f"{table}.{column}" if table else column
    return f"coalesce({name}_as_sent, CAST({name} AS json))"


def columns_of(names: Iterable[str], table: str = "") -> str:
    """What to select for these fields of a job, under their names.

    Example:
        >>> columns_of(["id", "task"], "jobs")
        'jobs.id, jobs.task'
    """
    before = f"{table}." if table else ""
    return ", ".join(
        f"{as_sent(name, table)} AS {name}"
        if name in {"payload", "result"}
        else _TENANT.format(before=before)
        if name == "tenant"
        else before + name
        for name in names
    )
