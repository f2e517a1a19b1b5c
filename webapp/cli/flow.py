"""`flask --app wsgi queues` and `tasks`: list, show, pause, resume, history; their limits are in `limits.py`."""

from __future__ import annotations

import getpass
from typing import Any, cast

import click
from flask import current_app
from flask.cli import AppGroup

from webapp.api.flow_schemas import ChangeAnswer, ChangesQuery, FlowAnswer, PauseRequest, QueueAnswer
from webapp.cli.console import (
    json_option,
    say,
    show_fields,
    show_json,
    show_table,
    with_options,
    with_plain_errors,
)
from webapp.flow.model import FlowState, Kind, Target
from webapp.flow.reach import EVERYTHING
from webapp.flow.service import Flow
from webapp.queues.listing import depths, queue_state, queue_states

queues = AppGroup("queues", help="Look at queues, limit, pause and resume them.")
tasks = AppGroup("tasks", help="Look at tasks, limit, pause and resume them.")

_COLUMNS = ("name", "paused", "paused_at", "paused_by", "paused_why")
_CHANGES = ("id", "at", "who", "target", "old", "new", "why")

_WORDS = (
    click.option("--by", default=getpass.getuser, help="Who does this; the user of this shell by default."),
    click.option("--why", help="Kept with the pause and on record."),
)
_PAGE = (
    click.option("--limit", type=int, default=20, show_default=True, help="How many at most."),
    click.option("--cursor", type=int, help="The last change of the page before."),
)


def _flow() -> Flow:
    return cast("Flow", current_app.extensions["flow"])


@queues.command("list")
@json_option
@with_plain_errors
def list_queues(*, as_json: bool) -> None:
    """All queues, with what waits and runs in each."""
    found = depths(current_app.extensions["sqlalchemy"].engine, EVERYTHING)
    answers = [
        QueueAnswer.of_queue(one) for one in queue_states(_flow().states(Kind.QUEUE, EVERYTHING), found)
    ]
    if as_json:
        show_json({"items": answers, "counts_are_estimates": found.estimated})
        return
    show_table(answers, ("name", "waiting", "due", "running", *_COLUMNS[1:]), nothing="no queues")


@tasks.command("list")
@json_option
@with_plain_errors
def list_tasks(*, as_json: bool) -> None:
    """All tasks, and whether they are paused."""
    answers = [FlowAnswer.of(one) for one in _flow().states(Kind.TASK, EVERYTHING).values()]
    if as_json:
        show_json({"items": answers})
        return
    show_table(answers, _COLUMNS, nothing="no tasks")


@queues.command("show")
@click.argument("name")
@json_option
@with_plain_errors
def show_queue(name: str, *, as_json: bool) -> None:
    """One queue."""
    state = _flow().state(Target(Kind.QUEUE, name), EVERYTHING)
    found = depths(current_app.extensions["sqlalchemy"].engine, EVERYTHING)
    _show(QueueAnswer.of_queue(queue_state(state, found)), as_json=as_json)


@tasks.command("show")
@click.argument("name")
@json_option
@with_plain_errors
def show_task(name: str, *, as_json: bool) -> None:
    """One task."""
    _show(FlowAnswer.of(_flow().state(Target(Kind.TASK, name), EVERYTHING)), as_json=as_json)


def _show(answer: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        show_json(answer)
    else:
        show_fields(answer)


def _turning(kind: Kind, verb: str, help_text: str) -> click.Command:
    """The command that pauses or resumes one of a kind."""

    @click.command(verb, help=help_text)
    @click.argument("name")
    @with_options(*_WORDS)
    @json_option
    @with_plain_errors
    def turn(name: str, *, by: str | None, why: str | None, as_json: bool) -> None:
        words = PauseRequest.model_validate({"by": by, "why": why})
        method = _flow().pause if verb == "pause" else _flow().resume
        _tell(kind, method(Target(kind, name), EVERYTHING, by=words.by, why=words.why), as_json=as_json)

    return turn


def _tell(kind: Kind, state: FlowState, *, as_json: bool) -> None:
    if as_json:
        show_json(FlowAnswer.of(state))
    else:
        say(f"{Target(kind, state.name).words} is {'paused' if state.pause else 'not paused'}")


def _history(kind: Kind) -> click.Command:
    """The command that shows the changes of one of a kind."""

    @click.command("history", help="Who changed it, when and why, the newest change first.")
    @click.argument("name")
    @with_options(*_PAGE)
    @json_option
    @with_plain_errors
    def history(name: str, *, as_json: bool, limit: int, cursor: int | None) -> None:
        target = str(Target(kind, name))
        query = ChangesQuery.model_validate({"target": target, "limit": limit, "cursor": cursor})
        rows = _flow().changes(query.target, EVERYTHING, before=query.cursor, limit=query.limit)
        answers = [ChangeAnswer.of(row) for row in rows]
        if as_json:
            show_json({"items": answers})
        else:
            show_table(answers, _CHANGES, nothing="no changes")

    return history


for _group, _kind in ((queues, Kind.QUEUE), (tasks, Kind.TASK)):
    _group.add_command(_turning(_kind, "pause", "Holds all jobs that have not begun, until it is resumed."))
    _group.add_command(_turning(_kind, "resume", "Lets its jobs start again."))
    _group.add_command(_history(_kind))
