"""`ops jobs|dlq|batches|schedules|queues|tasks|workers|access|audit|db`: the commands of `flask --app wsgi`, in the environment of the stack that runs."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from ops.stack.stack import Stack, StackError
from ops.stack.venv import ROOT
from webapp.settings import Settings
from webapp.settings.local import read_note

#: What the stack's note says, and commands take as settings.
NOTED = ("database_url", "redis_url", "redis_prefix", "handlers", "default_handler", "queues")
#: Commands that only look. They work while a module with handlers is broken: that is when one looks.
READING = frozenset(
    {("jobs", name) for name in ("list", "show", "explain", "watch", "tail", "wait")}
    | {("dlq", name) for name in ("list", "groups")}
    | {("batches", name) for name in ("list", "show", "explain")}
    | {("schedules", name) for name in ("list", "show", "next", "firings", "versions", "explain")}
    | {(kind, name) for kind in ("queues", "tasks") for name in ("list", "show", "history")}
    | {("workers", "list")}
    | {("access", name) for name in ("init", "key")}
    | {("audit", name) for name in ("list", "verify")}
)
WITHOUT_HANDLERS = {"HANDLERS": "", "DEFAULT_HANDLER": str(Settings.model_fields["default_handler"].default)}


def run(stack: Stack, command: str, arguments: Sequence[str], here: Path) -> int:
    """Runs `flask --app wsgi COMMAND ...` with the servers and handlers of the running stack; returns its exit code.

    Args:
        here: the folder that the command was typed in, for files that it names.

    Raises:
        StackError: no stack runs, and no setting names a database.
    """
    from flask.cli import FlaskGroup  # noqa: PLC0415 - only the commands of the application need Flask

    note = read_note(stack.data)
    if not note and "database_url" not in stack.settings.model_fields_set and not _asks_for_help(arguments):
        raise StackError("DJPS is not up; `python3 -m ops up` starts it, or DATABASE_URL names its database")
    os.environ.update(noted(note) | (WITHOUT_HANDLERS if tuple([command, *arguments][:2]) in READING else {}))
    sys.path[:0] = [str(ROOT), *filter(None, str(note.get("python_path", "")).split(os.pathsep))]
    words = [_absolute(word, here) if command == "jobs" else word for word in arguments]
    try:
        FlaskGroup(name="ops").main(["--app", "wsgi", command, *words], prog_name="python3 -m ops")
    except SystemExit as ended:
        if isinstance(ended.code, str):
            # Python prints it where nothing catches it.
            print(ended.code, file=sys.stderr)
            return 1
        return int(ended.code or 0)
    return 0


def _asks_for_help(arguments: Sequence[str]) -> bool:
    return not arguments or "--help" in arguments


def noted(note: Mapping[str, object]) -> dict[str, str]:
    """Settings that reach the stack of a note: they come before those of this shell. Pure."""
    return {name.upper(): str(note[name]) for name in NOTED if note.get(name) is not None}


def _absolute(word: str, here: Path) -> str:
    """A payload's file, which is named from the folder that the command was typed in."""
    return f"@{here / word[1:]}" if word.startswith("@") and len(word) > 1 else word
