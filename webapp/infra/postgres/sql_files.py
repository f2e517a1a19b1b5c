r"""Reads SQL files: each room keeps its statements in a folder `sql/`, one statement or one family a file.

A file opens in psql as it is, with `\set` for its `:names`. It begins with a comment that says what the statement does, what
guards it, and in which order it locks. A family has several statements, each after a line `-- name: NAME`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)
_MARK = re.compile(r"\s+-- [\w ]+$")
_COMMENT = re.compile(r"^\s*--.*\n?", re.MULTILINE)
#: Between two parts of a `WITH`.
_NEXT_PART = re.compile(r",\n\w+ AS \(\n")
#: Rows made of arrays, a column each; the arrays, and the columns' names.
_ROWS = re.compile(r"SELECT \* FROM unnest\((.*?)\)\s+AS \w+\(([^)]*)\)", re.DOTALL)
#: An INSERT of one row: the part before it, the table, its columns, the values, the part that they depend on, what it gives back.
_INSERT = re.compile(
    r"(WITH .*?\)\n)?(INSERT INTO \w+) \(([^()]*)\)\nSELECT (.*?)(?:\n  FROM (\w+))?\nON CONFLICT DO NOTHING\nRETURNING (.*)",
    re.DOTALL,
)
#: The row of the part before it.
_KEY_ROW = re.compile(r"VALUES \((.*)\)$", re.MULTILINE)
#: The place of a value; `::` is a cast.
_VALUE = re.compile(r"(?<!:):(\w+)")
_ARRAY = re.compile(r"CAST\(:\w+ AS \w+\[\]\)")


def read_sql(module: str, file: str, part: str = "", *, without: Sequence[str] = ()) -> str:
    """The text of a statement, without comments and without the semicolon at its end.

    Args:
        module: `__file__` of a module in the room that owns the statement.
        file: the file's name in that room's `sql/`, without its ending.
        part: the statement's name where the file has several.
        without: lines that end with a comment of this text are left out: they are for what a statement can do without.

    Raises:
        KeyError: the file has no such statement.

    Example:
        >>> read_sql(__file__, "is_read_only")
        "SELECT current_setting('transaction_read_only')::bool"
    """
    text = _parts_of(Path(module).parent / "sql" / f"{file}.sql")[part]
    marked = tuple(f"-- {mark}" for mark in without)
    kept = [line for line in text.splitlines() if not line.endswith(marked)] if marked else text.splitlines()
    return "\n".join(_MARK.sub("", line) for line in kept)


def without_answer(statement: str) -> str:
    r"""A statement of `WITH` parts without the SELECT that gives their rows back: another statement takes its parts.

    Example:
        >>> without_answer("WITH ended AS (SELECT 1)\nSELECT * FROM ended")
        'WITH ended AS (SELECT 1)'
    """
    return statement.rsplit("\nSELECT ", 1)[0]


def without_rows(statement: str) -> str:
    r"""A statement of `WITH` parts that ends with the last of them: PostgreSQL says how many rows that wrote, and gives none.

    Example:
        >>> without_rows("WITH a AS (SELECT 1),\nb AS (\n    INSERT INTO t SELECT * FROM a\n    RETURNING id)\nSELECT * FROM b")
        'WITH a AS (SELECT 1)\n    INSERT INTO t SELECT * FROM a'
    """
    parts = without_answer(statement)
    *_, cut = _NEXT_PART.finditer(parts)
    return parts[: cut.start()] + "\n" + parts[cut.end() :].rsplit("\n    RETURNING ", 1)[0]


def of_one(statement: str) -> str:
    """A statement about rows that are given as arrays, for a single row: its values are constants, and planned as such.

    The row of a function is planned as any number of rows; for one job PostgreSQL took half as long again.

    Example:
        >>> of_one("SELECT * FROM unnest(CAST(:ids AS uuid[]), CAST(:ends AS text[])) AS given(id, ending)")
        'SELECT (CAST(:ids AS uuid[]))[1] AS id, (CAST(:ends AS text[]))[1] AS ending'
    """

    def first(rows: re.Match[str]) -> str:
        columns = zip(_ARRAY.findall(rows[1]), rows[2].split(","), strict=True)
        return "SELECT " + ", ".join(f"({array})[1] AS {name.strip()}" for array, name in columns)

    return _ROWS.sub(first, statement)


def of_rows(statement: str, rows: int) -> str:
    r"""An INSERT of one row, as one of several that also gives their ids: the `:names` of each row end with its number.

    Where the row depends on what a `WITH` part has written, each row depends on its own, which the part gives back as `job_id`.

    Example:
        >>> of_rows("INSERT INTO t (id, a)\nSELECT :id, now()\nON CONFLICT DO NOTHING\nRETURNING a", 2)
        'INSERT INTO t (id, a)\nSELECT * FROM (VALUES\n(:id_0, now()),\n(:id_1, now())) AS given(id, a)\nON CONFLICT DO NOTHING\nRETURNING id, a'
    """
    found = _INSERT.fullmatch(statement)
    if found is None:
        raise ValueError("this is no INSERT of one row")
    part, into, columns, values, source, answer = found.groups(default="")

    def each(row: str) -> str:
        return ",\n".join(_VALUE.sub(rf":\1_{number}", f"({row})") for number in range(rows))

    part = _KEY_ROW.sub(lambda key: "VALUES " + each(key[1]), part)
    of_each = f"\nWHERE id IN (SELECT job_id FROM {source})" if source else ""  # noqa: S608 - all of it is of our own files
    return (
        f"{part}{into} ({columns})\nSELECT * FROM (VALUES\n{each(values)}) AS given({columns}){of_each}"
        f"\nON CONFLICT DO NOTHING\nRETURNING id, {answer}"
    )


@cache
def _parts_of(path: Path) -> dict[str, str]:
    """The statements of a file by name; one that has no name is called ""."""
    before, *named = _NAME.split(path.read_text())
    texts = dict(zip(named[::2], named[1::2], strict=True)) or {"": before}
    return {name: _COMMENT.sub("", text).strip().removesuffix(";").rstrip() for name, text in texts.items()}
