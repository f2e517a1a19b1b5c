"""`flask --app wsgi dlq`: groups, list, requeue, discard."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import click
from flask import current_app
from flask.cli import AppGroup

from webapp.api.dlq_schemas import (
    DiscardRequest,
    GroupAnswer,
    GroupsQuery,
    LetterAnswer,
    LettersQuery,
    ReportAnswer,
    RequeueRequest,
)
from webapp.cli.console import json_option, say, show_json, show_table, with_options, with_plain_errors
from webapp.dead_letters.model import Report, ResolveRequest
from webapp.dead_letters.service import DeadLetters
from webapp.flow.reach import EVERYTHING, Reach

group = AppGroup("dlq", help="The dead letter queue: look, group, requeue, discard.")

_FILTERS = (
    click.option("--task", help="Only letters of this handler."),
    click.option("--queue", help="Only letters of this queue."),
    click.option(
        "--reason",
        type=click.Choice(["exhausted", "discarded"]),
        help="Its retries were used up, or its handler said so.",
    ),
    click.option("--error-type", help="The exception's class, with its module."),
    click.option("--fingerprint", help="Only letters of one error, as `groups` names it."),
    click.option("--dead-after", help="Died later than this; ISO 8601, with an offset."),
    click.option("--dead-before", help="Died earlier than this; ISO 8601, with an offset."),
)
_RESOLVE = (
    click.option("--id", "ids", multiple=True, help="A job; may be given more than once."),
    click.option("--all", "everything", is_flag=True, help="Every open letter."),
    click.option("--dry-run", is_flag=True, help="Only say how many match."),
    click.option("--by", default=lambda: os.environ.get("USER"), help="Who does this; $USER by default."),
    click.option("--why", help="Kept with each letter."),
)


def _dead_letters() -> DeadLetters:
    return cast("DeadLetters", current_app.extensions["dead_letters"])


def _given(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


@group.command()
@with_options(*_FILTERS)
@click.option("--limit", type=int, default=20, show_default=True, help="How many at most.")
@json_option
@with_plain_errors
def groups(*, as_json: bool, **options: Any) -> None:
    """Open letters by what they died of, the largest group first."""
    query = GroupsQuery.model_validate(_given(options))
    answers = [
        GroupAnswer.of(one) for one in _dead_letters().groups(query.filter(), EVERYTHING, limit=query.limit)
    ]
    if as_json:
        show_json({"items": answers})
        return
    columns = (
        "count",
        "task",
        "queue",
        "error_type",
        "fingerprint",
        "last_dead_at",
        "sample_job_id",
        "sample_message",
    )
    show_table(answers, columns, nothing="no dead letters")


@group.command("list")
@with_options(*_FILTERS)
@click.option(
    "--state",
    type=click.Choice(["open", "requeued", "discarded", "all"]),
    default="open",
    show_default=True,
    help="What became of the letters.",
)
@click.option("--limit", type=int, default=20, show_default=True, help="How many at most.")
@click.option("--cursor", type=int, help="The last letter of the page before.")
@json_option
@with_plain_errors
def list_letters(*, as_json: bool, **options: Any) -> None:
    """Dead letters, the newest first."""
    query = LettersQuery.model_validate(_given(options))
    letters, total = _dead_letters().page(query.wanted, EVERYTHING, limit=query.limit, before=query.cursor)
    answers = [LetterAnswer.of(one) for one in letters]
    if as_json:
        show_json({"items": answers, "total": total})
        return
    columns = ("id", "job_id", "task", "queue", "reason", "error_type", "error_message", "dead_at")
    show_table(answers, columns, nothing="no dead letters")
    say(f"{len(answers)} of {total}", err=True)


@group.command()
@with_options(*_FILTERS, *_RESOLVE)
@click.option("--rate", type=float, help="Jobs that become due in a second.")
@json_option
@with_plain_errors
def requeue(*, as_json: bool, **options: Any) -> None:
    """Queues jobs again: those named, those that match, or all."""
    wanted = RequeueRequest.model_validate(_request(options))
    _carry_out(wanted.request(None), _dead_letters().requeue, as_json=as_json)


@group.command()
@with_options(*_FILTERS, *_RESOLVE)
@json_option
@with_plain_errors
def discard(*, as_json: bool, **options: Any) -> None:
    """Puts letters aside: those named, those that match, or all; their jobs stay failed."""
    wanted = DiscardRequest.model_validate(_request(options))
    _carry_out(wanted.request(None), _dead_letters().discard, as_json=as_json)


def _request(options: dict[str, Any]) -> dict[str, Any]:
    """The options in the form of the HTTP request."""
    given = _given(options)
    beside = {name: given.pop(name) for name in ("dry_run", "by", "why", "rate") if name in given}
    ids, everything = given.pop("ids"), given.pop("everything")
    return beside | _given(
        {"ids": list(ids) or None, "all": True if everything else None, "filter": given or None}
    )


def _carry_out(
    request: ResolveRequest, resolve: Callable[[ResolveRequest, Reach], Report], *, as_json: bool
) -> None:
    """Repeats a request until all that matched is dealt with, with a progress bar on stderr."""
    first = report = resolve(request, EVERYTHING)
    changed = report.changed
    if report.more:
        with click.progressbar(length=first.matched, label="letters", file=sys.stderr) as bar:
            bar.update(report.changed)
            while report.more and report.changed and changed < first.matched:
                report = resolve(
                    replace(request, start_at=report.next_start_at or request.start_at), EVERYTHING
                )
                changed += report.changed
                bar.update(report.changed)
    total = replace(report, matched=first.matched, changed=changed)
    if as_json:
        show_json(ReportAnswer.of(total, dry_run=request.dry_run))
        return
    say(f"{total.matched} match" if request.dry_run else f"{total.changed} of {total.matched} done")
