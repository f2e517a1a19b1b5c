from __future__ import annotations

import pytest

from webapp.infra.postgres.sql_files import read_sql


@pytest.fixture
def room(tmp_path):
    (tmp_path / "sql").mkdir()

    def write(text):
        (tmp_path / "sql" / "some.sql").write_text(text)
        return str(tmp_path / "store.py")

    return write


def test_comments_and_the_semicolon_are_left_out(room):
    module = room("-- What it does: it is :guarded.\nSELECT 1\n  -- why\n  FROM jobs;\n")
    assert read_sql(module, "some") == "SELECT 1\n  FROM jobs"


def test_a_family_has_its_statements_by_name(room):
    module = room("-- A family.\n\n-- name: one\nSELECT 1;\n\n-- name: two\n-- why\nSELECT 2;\n")
    assert (read_sql(module, "some", "one"), read_sql(module, "some", "two")) == ("SELECT 1", "SELECT 2")


def test_a_name_that_is_not_there_is_an_error(room):
    module = room("SELECT 1;")
    with pytest.raises(KeyError, match="three"):
        read_sql(module, "some", "three")
