"""The product's files and functions are of a size that reads in one go."""

from __future__ import annotations

from pathlib import Path
from statistics import median

import pytest
from radon.complexity import cc_visit

ROOT = Path(__file__).resolve().parents[2]
FILES = {
    str(path.relative_to(ROOT)): path
    for room in ("webapp", "tasks")
    for path in (ROOT / room).rglob("*.py")
    if path.name != "__init__.py"
}
#: Lines of a file.
SHORTEST, LONGEST = 40, 400
#: Files that are shorter, and why.
SHORT = {
    "webapp/infra/postgres/base.py": "one base for all tables",
    "tasks/handlers/simulated.py": "its qualified name is kept in databases",
    "tasks/sweeps/expire.py": "one sweep a file",
    "tasks/sweeps/late_callbacks.py": "one sweep a file",
    "tasks/sweeps/recover.py": "one sweep a file",
    "webapp/cli/workers.py": "one group of commands a file",
}
#: Ways through a function, as radon counts them.
MOST_WAYS = 12


def lines_of(path: Path) -> int:
    return len(path.read_text().splitlines())


@pytest.mark.parametrize("name", sorted(set(FILES) - set(SHORT)))
def test_a_file_is_neither_a_scrap_nor_a_book(name):
    assert SHORTEST <= lines_of(FILES[name]) <= LONGEST


@pytest.mark.parametrize("name", sorted(SHORT))
def test_an_exception_is_still_one(name):
    assert lines_of(FILES[name]) < SHORTEST


def test_most_files_are_read_in_some_minutes():
    assert 80 <= median(map(lines_of, FILES.values())) <= 200


@pytest.mark.parametrize("name", sorted(FILES))
def test_no_function_has_too_many_ways_through_it(name):
    found = {block.fullname: block.complexity for block in cc_visit(FILES[name].read_text())}
    assert {function: ways for function, ways in found.items() if ways > MOST_WAYS} == {}
