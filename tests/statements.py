"""What the code says to PostgreSQL, written down once for a release: later schemas must still understand it.

`python3 -m ops test tests/integration --record-statements=tests/contracts/statements/NNNN.jsonl` records every kind of
statement that `webapp` and `tasks` send, each with the values it had when it was seen first.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, event

ROOT = Path(__file__).resolve().parents[1]
#: Statements longer than this are not kept: they are shorter ones with more rows.
LONGEST = 6_000
#: Marks within a transaction say nothing to a schema, and nothing by themselves.
_MARK = re.compile(r"(RELEASE |ROLLBACK TO )?SAVEPOINT ")
#: What names days of history, which another database has not, or changes the catalog.
_OF_DAYS = re.compile(r"jobs_\d{8}|^ALTER TABLE")
_PARAMETERS = re.compile(r"%\((\w+?)(?:__?\d+)?\)s")
_ROWS = re.compile(r"(\([^()]*\))(?:, ?\1)+")


def kind(statement: str) -> str:
    """A statement without what differs between two of its kind: numbers of parameters, numbers of rows."""
    return _ROWS.sub(r"\1", _PARAMETERS.sub("?", " ".join(statement.split())))


def _place() -> str | None:
    """The file of ours that sends a statement; None when a test does."""
    frame = sys._getframe(2)
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(ROOT) and ".venv" not in path.parts:
            place = path.relative_to(ROOT).as_posix()
            return place if place.startswith(("webapp/", "tasks/")) else None
        frame = frame.f_back
    return None


@contextmanager
def recorded(file: Path) -> Iterator[None]:
    """Records what every engine of this process sends, and writes it when the block ends."""
    seen: dict[str, dict[str, str]] = {}

    def look(_connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        name, place = kind(statement), _place()
        if place is None or name in seen or len(cursor.query) > LONGEST or _MARK.match(statement):
            return
        if _OF_DAYS.search(cursor.query.decode()):
            return
        seen[name] = {"place": place, "sql": cursor.query.decode().replace(str(ROOT), "/srv/djps")}

    event.listen(Engine, "after_cursor_execute", look)
    try:
        yield
    finally:
        event.remove(Engine, "after_cursor_execute", look)
        lines = sorted(seen.values(), key=lambda one: (one["place"], one["sql"]))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def read(file: Path) -> list[dict[str, str]]:
    """The statements of a release: where each was, and its text with values."""
    return [json.loads(line) for line in file.read_text().splitlines()]
