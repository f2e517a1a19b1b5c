"""What people read at a terminal: tables, times as they are spoken of, colours where the terminal has them.

Rich does the drawing. It is imported where something is printed, for the API and workers never print.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TextIO

from webapp.infra.telemetry.printable import escaped

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

#: Widest cell of a table, characters.
WIDEST = 60
#: Width of an output that is no terminal, characters: nothing is cut off there.
UNBOUNDED = 10_000
#: Between two columns, characters.
GAP = 2
#: Columns of words that may be cut off where a terminal ends, and how much of them stays, characters.
_ELASTIC = frozenset({"last_error", "error_message", "sample_message", "what it does"})
NARROWEST = 16
#: How states are shown, of jobs and of processes.
_STYLES = {
    "completed": "green",
    "running": "green",
    "processing": "cyan",
    "failed": "red",
    "fatal": "red",
    "backoff": "red",
    "exited": "red",
    "cancelled": "dim",
    "stopped": "dim",
}
#: Units of time, the largest first: seconds, and what one is called.
_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def console(file: TextIO | None = None, *, err: bool = False) -> Console:
    """A console that takes text as it is: no markup, no guessed colours."""
    from rich.console import Console

    made = Console(file=file, stderr=err, soft_wrap=True, highlight=False, markup=False, emoji=False)
    if not made.is_terminal:
        made.width = UNBOUNDED
    return made


def show_table(
    rows: Sequence[Mapping[str, Any]], columns: Sequence[str], *, file: TextIO | None = None
) -> None:
    """Prints rows as a table; on a terminal that is too narrow for it, each row as lines of its own.

    Args:
        rows: values by column. Moments in columns that end with `_at` are shown as how long ago they are.
    """
    out = console(file)
    widths = _widths(rows, columns, out.width)
    if sum(widths) - GAP > out.width:
        _show_records(rows, columns, out)
        return
    # Rich counts the gap behind the last column, too.
    out.width = max(out.width, sum(widths))
    with out.capture() as captured:
        out.print(_table(rows, dict(zip(columns, widths, strict=True))), soft_wrap=False)
    for line in captured.get().splitlines():
        print(line.rstrip(), file=file)


def _show_records(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], out: Console) -> None:
    """Prints each row as a line for each value, with an empty line between two rows."""
    from rich.text import Text

    widest = max(map(len, columns))
    for number, row in enumerate(rows):
        if number:
            out.print()
        for name in columns:
            shown = cell(name, row.get(name))
            out.print(Text(name.ljust(widest + GAP), "bold") + Text(shown, _STYLES.get(shown, "")))


@contextmanager
def redrawn(*, enabled: bool) -> Iterator[Callable[[Sequence[Mapping[str, Any]], Sequence[str]], None]]:
    """Gives what draws a table in place of the one before it, without the last columns where it is too narrow for them.

    Args:
        enabled: whether there is a terminal; else nothing is drawn.
    """
    if not enabled:
        yield lambda _rows, _columns: None
        return
    from rich.live import Live

    def draw(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
        widths = dict(zip(columns, _widths(rows, columns, out.width), strict=True))
        while len(widths) > 1 and sum(widths.values()) - GAP > out.width:
            widths.popitem()
        live.update(_table(rows, widths), refresh=True)

    out = console()
    with Live(console=out, auto_refresh=False, vertical_overflow="crop") as live:
        yield draw


def _table(rows: Sequence[Mapping[str, Any]], widths: Mapping[str, int]) -> Table:
    """Rows as rich draws them, in columns of the given widths."""
    from rich.table import Table
    from rich.text import Text

    made = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold")
    for name, width in widths.items():
        made.add_column(name, no_wrap=True, overflow="ellipsis", width=width - GAP)
    for row in rows:
        shown = [cell(name, row.get(name)) for name in widths]
        made.add_row(*(Text(one, _STYLES.get(one, "")) for one in shown))
    return made


def _widths(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], available: int) -> list[int]:
    """How wide columns are, with the gap behind each: as their widest cell, or less where words may be cut off."""
    full = {
        name: GAP + max([len(name), *(len(cell(name, row.get(name))) for row in rows)]) for name in columns
    }
    elastic = [name for name in columns if name in _ELASTIC]
    left = available + GAP - sum(width for name, width in full.items() if name not in _ELASTIC)
    share = max(GAP + NARROWEST, left // max(1, len(elastic)))
    return [min(width, share) if name in _ELASTIC else width for name, width in full.items()]


def in_line(value: object) -> str:
    """A JSON value in one line, cut off where it is long."""
    text = "" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= WIDEST else text[: WIDEST - 1] + "…"


def cell(column: str, value: object) -> str:
    """A value in one line: `-` where there is none, cut off where it is long."""
    if value is None:
        return "-"
    if column.endswith("_at") and isinstance(value, str):
        return ago(datetime.fromisoformat(value))
    text = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
    line = escaped(" ".join(text.split()))
    return line if len(line) <= WIDEST else line[: WIDEST - 1] + "…"


def ago(moment: datetime, now: datetime | None = None) -> str:
    """How long ago a moment is, or how far it is away, in one unit.

    Example:
        >>> day = datetime(2026, 11, 24, tzinfo=UTC)
        >>> ago(day, day.replace(minute=3)), ago(day.replace(hour=2), day), ago(day, day)
        ('3 min ago', 'in 2 h', 'now')
    """
    seconds = ((now or datetime.now(UTC)) - moment).total_seconds()
    for length, unit in _UNITS:
        if abs(seconds) >= length:
            count = int(abs(seconds) // length)
            return f"{count} {unit} ago" if seconds > 0 else f"in {count} {unit}"
    return "now"
