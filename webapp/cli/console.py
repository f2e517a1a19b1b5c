"""What the commands share: their options, files that they are given, answers as JSON or as a table, and errors as a sentence and an exit code."""

from __future__ import annotations

import json
import sys
import tomllib
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import wraps
from pathlib import Path
from typing import Any, NoReturn, ParamSpec, TypeVar

import click
from pydantic import ValidationError
from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError

from webapp.access.errors import AccessError, UnknownKey, UnknownTenant
from webapp.api.breaches import breaches_of
from webapp.api.errors import DATABASE_TROUBLES
from webapp.api.strictjson import BadBody
from webapp.batches.errors import BatchError, BatchGone, UnknownBatch
from webapp.flow.errors import FlowError, UnknownTarget
from webapp.infra import terminal
from webapp.infra.postgres import database_errors
from webapp.infra.telemetry.printable import escaped, escaped_json
from webapp.jobs.errors import JobError, JobGone, JobNotFound
from webapp.schedules.errors import ScheduleError, UnknownSchedule
from webapp.workflows.errors import UnknownStep, UnknownWorkflow, WorkflowError, WorkflowGone

#: Exit codes beside click's own: 0 done, 2 wrong usage.
REFUSED, NOT_FOUND, SERVER_AWAY, TOO_LATE, INTERRUPTED = 1, 4, 5, 124, 130

#: What is asked about is not there.
NOT_THERE = (
    *(JobNotFound, JobGone, UnknownTarget, UnknownKey, UnknownTenant, UnknownSchedule),
    *(UnknownBatch, BatchGone, UnknownWorkflow, WorkflowGone, UnknownStep),
)
#: What is refused.
REFUSALS = (JobError, FlowError, AccessError, ScheduleError, BatchError, WorkflowError)

P = ParamSpec("P")
T = TypeVar("T")

json_option = click.option("--json", "as_json", is_flag=True, help="JSON for programs.")

Command = Callable[..., Any]


def with_options(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Gives a command several options, which its help shows in this order."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def with_plain_errors(command: Callable[P, T]) -> Callable[P, T]:
    """Turns a command's errors into a sentence on stderr and an exit code."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return command(*args, **kwargs)
        except ValidationError as error:
            rules = "; ".join(
                f"{_typed(one.field)}: {one.rule} (given: {one.given})" for one in breaches_of(error)
            )
            raise click.UsageError(escaped(rules)) from None
        except BadBody as error:
            raise click.UsageError(escaped(str(error))) from None
        except NOT_THERE as error:
            _fail(str(error), NOT_FOUND)
        except REFUSALS as error:
            _fail(str(error), REFUSED)
        except SQLAlchemyError as error:
            _fail(_sentence_of(error), SERVER_AWAY)
        except RedisError as error:
            _fail(f"Redis is not answering ({type(error).__name__})", SERVER_AWAY)

    return run


def _typed(field: str) -> str:
    """A field as it was typed: `--max-retries` for `max_retries`, where the command has such an option."""
    top, dot, rest = field.partition(".")
    known = {one.name: one.opts[0] for one in click.get_current_context().command.params}
    # A list is given by an option that stands for one of it.
    option = known.get(top) or known.get(top.removesuffix("s"))
    return f"{option}{dot}{rest}" if option is not None and option.startswith("-") else field


def _sentence_of(error: SQLAlchemyError) -> str:
    """What is the matter with the database, and never its own words, which may quote a payload."""
    words = DATABASE_TROUBLES.get(database_errors.trouble_of(error), "the database did not take a statement")
    return f"{words} [{database_errors.described(error)}]"


def _fail(sentence: str, code: int) -> NoReturn:
    say(f"Error: {sentence}", err=True)
    click.get_current_context().exit(code)


def say(line: str, *, err: bool = False) -> None:
    """Prints one line; what would control the terminal is escaped.

    Args:
        err: on stderr.
    """
    click.echo(escaped(line), err=err)


def show_json(answer: object) -> None:
    """Prints JSON."""
    click.echo(escaped_json(json.dumps(answer, ensure_ascii=False, indent=2)))


def json_line(answer: object) -> None:
    """Prints JSON in one line."""
    click.echo(escaped_json(json.dumps(answer, ensure_ascii=False)))


def show_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], *, nothing: str) -> None:
    """Prints rows as a table.

    Args:
        nothing: what is said when there are none.
    """
    if rows:
        terminal.show_table(rows, columns, file=sys.stdout)
    else:
        say(nothing)


def show_fields(answer: Mapping[str, Any]) -> None:
    """Prints one thing, a field on each line."""
    width = max(map(len, answer))
    for name, value in answer.items():
        shown = json.dumps(value, ensure_ascii=False) if isinstance(value, (dict, list)) else value
        if name.endswith("_at") and isinstance(value, str):
            shown = f"{value} ({terminal.ago(datetime.fromisoformat(value))})"
        say(f"{name.ljust(width)}  {'-' if value is None else shown}")


def document_in(file: Path, most: int) -> Any:
    """What a file of a command holds: JSON where its name says so, else TOML.

    Args:
        most: bytes that it may have.

    Raises:
        click.UsageError: it cannot be read, is larger, or is neither.
    """
    try:
        with file.open("rb") as opened:
            content = opened.read(most + 1)
    except OSError as error:
        raise click.UsageError(f"{file} cannot be read: {error.strerror}") from None
    if len(content) > most:
        raise click.UsageError(f"{file} must be at most {most} bytes")
    try:
        text = content.decode()
        return json.loads(text) if file.suffix == ".json" else tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise click.UsageError(f"{file} is no TOML, or no JSON where its name says so: {error}") from None
