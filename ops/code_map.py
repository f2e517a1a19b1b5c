"""Makes `ops/docs/map.md` from the tree: every module of the product, with the first line of its docstring."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "ops" / "docs" / "map.md"
#: The packages that are on the map.
PACKAGES = ("webapp", "tasks")
_HEAD = """\
# Map

Every module of `webapp/` and `tasks/`, with the first line of its docstring. [Architecture](architecture.md) tells how they work
together. This page is made from the tree by `python3 -m ops map`; a test fails when it differs.
"""


class NoDocstringError(Exception):
    """A module has no docstring, so the map cannot say what it does."""


def page() -> str:
    """The text of the page."""
    return _HEAD + "".join(_room(room) for package in PACKAGES for room in _rooms(ROOT / package))


def write() -> int:
    """Writes the page; returns the exit code."""
    PAGE.write_text(page())
    print(f"wrote {PAGE}")
    return 0


def _rooms(package: Path) -> list[Path]:
    return sorted(file.parent for file in package.rglob("__init__.py"))


def _room(room: Path) -> str:
    """The section of one package: its own docstring, then its modules by name."""
    modules = sorted(file for file in room.glob("*.py") if file.name != "__init__.py")
    lines = [f"* [`{one.name}`](../../{one.relative_to(ROOT)}): {_first_line(one)}\n" for one in modules]
    listed = "\n" + "".join(lines) if lines else ""
    return f"\n## `{room.relative_to(ROOT)}/`\n\n{_first_line(room / '__init__.py')}\n{listed}"


def _first_line(module: Path) -> str:
    """The first line of a module's docstring.

    Raises:
        NoDocstringError: it has none.
    """
    text = ast.get_docstring(ast.parse(module.read_text()))
    if not text:
        raise NoDocstringError(f"{module.relative_to(ROOT)} has no docstring")
    return text.splitlines()[0]
