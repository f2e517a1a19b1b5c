"""The mutants of the fault suite that change functions of the database: what they replace is there, and what they put there works."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from ops.chaos import take_mutants


@pytest.mark.parametrize("name", sorted(take_mutants.EDITS))
def test_a_mutant_is_another_function_that_postgresql_takes(engine, name):
    functions = sorted({edit.function for edit in take_mutants.EDITS[name]})

    with engine.connect() as connection, connection.begin() as transaction:

        def rows(statement, *values):
            found = connection.exec_driver_sql(statement, values or None)
            return [tuple(row) for row in found] if found.returns_rows else []

        def texts():
            shown = text("SELECT pg_get_functiondef(CAST(:name AS regproc))")
            return [connection.execute(shown, {"name": one}).scalar_one() for one in functions]

        before = texts()
        take_mutants.install(rows, name)
        changed = [old != new for old, new in zip(before, texts(), strict=True)]
        transaction.rollback()
    assert all(changed)
