"""Test files' names are unique: pytest imports them by their bare names, so two of one name stop the whole suite."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]


def test_no_two_test_files_share_a_name():
    names = Counter(path.name for path in TESTS.rglob("test_*.py"))

    assert {name for name, count in names.items() if count > 1} == set()
