"""What to select for a job's fields: JSON as it was given, also where `jsonb` would give it back otherwise."""

from __future__ import annotations

from collections.abc import Iterable


def as_sent(column: str, table: str = "") -> str:
    """What to select for `payload` or `result`: the value as it was given.

    Args:
        column: its name.
        table: what stands before it where another table has such a column too.
    """
    name = f"{table}.{column}" if table else column
    return f"coalesce({name}_as_sent, CAST({name} AS json))"


def columns_of(names: Iterable[str], table: str = "") -> str:
    """What to select for these fields of a job, under their names."""
    before = f"{table}." if table else ""
    return ", ".join(
        f"{as_sent(name, table)} AS {name}" if name in {"payload", "result"} else before + name
        for name in names
    )
