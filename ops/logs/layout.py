"""How a line is shown: for people, or as JSON for programs."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

from ops.logs.lines import Line
from webapp.infra.telemetry.printable import escaped, escaped_json

if TYPE_CHECKING:
    from rich.text import Text

#: Fields of our lines that have a place of their own, and the logger, which says little in a merged log.
_OWN = frozenset({"timestamp", "level", "message", "logger"})
#: A field with line breaks, such as a traceback, stands below its line.
_STYLES = {
    logging.DEBUG: "dim",
    logging.WARNING: "yellow",
    logging.ERROR: "red",
    logging.CRITICAL: "bold red",
}
#: Widest name of a process.
_NAME_WIDTH = 11


def as_json(line: Line) -> str:
    """A line as a JSON object: a JSON line as it was written, with its `process` in front.

    Example:
        >>> from datetime import UTC, datetime
        >>> as_json(Line("worker", datetime(2026, 11, 24, tzinfo=UTC), 20, '{"message":"job completed"}'))
        '{"process":"worker","message":"job completed"}'
    """
    if _fields(line.text):
        return escaped_json(f'{{"process":{json.dumps(line.process)},{line.text[1:]}')
    fields = {
        "process": line.process,
        "timestamp": line.at.isoformat(timespec="milliseconds"),
        "level": logging.getLevelName(line.level),
        "message": line.text,
    }
    return escaped_json(json.dumps(fields, ensure_ascii=False, separators=(",", ":")))


def as_text(line: Line) -> Text:
    """A line for people: time of day here, process, level, message, and its other fields."""
    from rich.text import Text  # noqa: PLC0415 - it is installed with the stack, and only this needs it

    fields = _fields(line.text)
    style = _STYLES.get(line.level, "")
    shown = Text()
    shown.append(f"{line.at.astimezone():%m-%d %H:%M:%S.%f}"[:-3], "dim")
    shown.append(f" {line.process:<{_NAME_WIDTH}} ", "cyan")
    if not fields:
        return shown.append(escaped(line.text.replace("\t", "    ")), style)
    shown.append(f"{logging.getLevelName(line.level):<8} ", style)
    shown.append(escaped(str(fields.get("message", ""))), style)
    below: list[str] = []
    for name, value in fields.items():
        if name in _OWN:
            continue
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        if "\n" in text:
            below += [f"    {escaped(part)}" for part in text.splitlines()]
        else:
            shown.append(f" {escaped(name)}=", "dim").append(escaped(text))
    for part in below:
        shown.append(f"\n{part}", "dim")
    return shown


def _fields(text: str) -> dict[str, Any]:
    """The fields of a line that is a JSON object; empty for any other."""
    if not text.startswith("{"):
        return {}
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
