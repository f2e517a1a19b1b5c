"""What a migration does to the code of the release before it, read from its SQL."""

from __future__ import annotations

import re

_IDENTIFIER = r"\"?(?:\w+\.)?(\w+)\"?"
_CREATED = re.compile(rf"\bCREATE TABLE (?:IF NOT EXISTS )?{_IDENTIFIER}", re.IGNORECASE)
_INDEXED = re.compile(
    rf"\bINDEX (?:CONCURRENTLY )?(?:IF NOT EXISTS )?\S+ ON (?:ONLY )?{_IDENTIFIER}", re.IGNORECASE
)
_ALTERED = re.compile(rf"^\s*(?:ALTER TABLE|UPDATE|DELETE FROM)(?: ONLY)? {_IDENTIFIER}", re.IGNORECASE)

#: Statements that code written for the schema before may break on, or may break.
CONTRACTS = {
    "drops a table": r"^\s*DROP TABLE",
    "drops a column": r"^\s*ALTER TABLE .* DROP COLUMN",
    "renames": r"^\s*ALTER (TABLE|INDEX|TYPE) .* RENAME",
    "changes a column's type": r"^\s*ALTER TABLE .* ALTER COLUMN \S+ (SET DATA )?TYPE",
    "refuses NULL": r"^\s*ALTER TABLE .* SET NOT NULL",
    "adds a column that must be given": r"^\s*ALTER TABLE .* ADD COLUMN (?!.*\bDEFAULT\b).*\bNOT NULL",
    "adds a rule": r"^\s*ALTER TABLE .* ADD CONSTRAINT",
    "adds a unique index": r"^\s*CREATE UNIQUE INDEX",
    "drops an index, which an ON CONFLICT may name": r"^\s*DROP INDEX",
}
#: Statements that keep writers waiting for as long as the table is large.
BLOCKS = {
    "builds an index while writers wait": r"^\s*CREATE (UNIQUE )?INDEX (?!CONCURRENTLY)",
    "checks every row while writers wait": r"^\s*ALTER TABLE .* ADD CONSTRAINT (?!.*\bNOT VALID\b)",
    "rewrites rows in one transaction": r"^\s*(UPDATE|DELETE FROM)\b",
    "copies rows in one transaction": r"^\s*INSERT INTO .*\bSELECT\b",
}


def statements(sql: str) -> list[str]:
    """The statements of a script, without comments and without the bodies of functions."""
    bare = re.sub(r"\$\$.*?\$\$", "''", re.sub(r"--[^\n]*", "", sql), flags=re.DOTALL)
    found = [" ".join(one.split()) for one in bare.split(";")]
    return [one for one in found if one and "alembic_version" not in one]


def _table(statement: str) -> str | None:
    found = _INDEXED.search(statement) or _ALTERED.match(statement)
    return found.group(1) if found else None


def findings(sql: str, rules: dict[str, str]) -> list[str]:
    """Which rules a migration breaks, each with its statement; what it does to tables of its own breaks none."""
    created = set(_CREATED.findall(sql))
    return [
        f"{rule}: {statement}"
        for statement in statements(sql)
        for rule, pattern in rules.items()
        if re.search(pattern, statement, re.IGNORECASE) and _table(statement) not in created
    ]
