"""`flask --app wsgi jobs`: list, show, cancel, retry, explain; `submit` and what follows a job are beside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast
from uuid import UUID

import click
from flask import current_app
from flask.cli import AppGroup

from webapp.api.attempt_schemas import AttemptAnswer
from webapp.api.page_schemas import PageQuery
from webapp.api.schemas import CancelRequest, JobAnswer, JobFields, RetryRequest
from webapp.cli.console import (
    json_option,
    say,
    show_fields,
    show_json,
    show_table,
    with_options,
    with_plain_errors,
)
from webapp.flow.reach import EVERYTHING
from webapp.infra.broker import heartbeats
from webapp.jobs.service import Jobs
from webapp.jobs.states import JobStatus

group = AppGroup("jobs", help="Submit jobs, look at them, control them.")

#: Columns of the table of jobs.
COLUMNS = ("id", "status", "task", "queue", "attempt", "created_at", "last_error")
#: Most attempts that are shown.
ATTEMPTS = 1_000


def job_service() -> Jobs:
    """The jobs of this application."""
    return cast("Jobs", current_app.extensions["jobs"])


_FILTERS = (
    click.option("--status", type=click.Choice([status.value for status in JobStatus]), help="Only these."),
    click.option("--task", help="Only jobs of this handler."),
    click.option("--queue", help="Only jobs of this queue."),
    click.option("--key", help="Only jobs of this key."),
    click.option("--tag", multiple=True, help="May be given more than once; a job has all of them."),
    click.option("--created-after", help="Submitted later than this; ISO 8601, with an offset."),
    click.option("--created-before", help="Submitted earlier than this; ISO 8601, with an offset."),
    click.option("--payload", help="JSON object that the payload contains."),
    click.option("--limit", type=int, default=20, show_default=True, help="How many jobs at most."),
)

#: Gives a command the filters of a listing.
filtered = with_options(*_FILTERS)


def query_of(given: Mapping[str, Any], tags: tuple[str, ...]) -> PageQuery:
    """The query that HTTP would take.

    Raises:
        ValidationError: a filter breaks its rule.
    """
    return PageQuery.model_validate(
        {name: value for name, value in given.items() if value is not None} | {"tag": list(tags)}
    )


@group.command("list")
@filtered
@click.option("--cursor", help="The last id of the page before.")
@json_option
@with_plain_errors
def list_jobs(*, as_json: bool, tag: tuple[str, ...], **given: Any) -> None:
    """Jobs, the newest first."""
    query = query_of(given, tag)
    page = job_service().page(query.wanted, EVERYTHING, limit=query.limit, before=query.cursor)
    answers = [JobFields.of(row) for row in page.jobs]
    if as_json:
        show_json({"items": answers, "total": page.total, "total_is_estimate": page.is_estimate})
    else:
        show_table(answers, COLUMNS, nothing="no jobs")
        say(f"{len(answers)} of {'about ' if page.is_estimate else ''}{page.total}", err=True)
    if page.short is not None:
        say(f"there may be more: go on with --cursor {page.next_before}", err=True)


@group.command()
@click.argument("job_id", type=click.UUID)
@click.option(
    "--attempts",
    "with_attempts",
    is_flag=True,
    help="Its attempts as well, and the traceback of the last that failed.",
)
@json_option
@with_plain_errors
def show(job_id: UUID, *, with_attempts: bool, as_json: bool) -> None:
    """One job."""
    answer = JobAnswer.of(job_service().get(job_id, EVERYTHING))
    rows, _ = (
        job_service().attempts(job_id, EVERYTHING, before=None, limit=ATTEMPTS)
        if with_attempts
        else ([], False)
    )
    attempts = [AttemptAnswer.of(row) for row in rows]
    if as_json:
        show_json(answer | ({"attempts": attempts} if with_attempts else {}))
        return
    show_fields(answer)
    if with_attempts:
        say("")
        columns = ("attempt", "outcome", "started_at", "duration", "worker_id", "error_type", "error_message")
        show_table(attempts, columns, nothing="no attempts")
        traced = next((one for one in attempts if one["traceback"]), None)
        if traced is not None:
            say("")
            say(f"attempt {traced['attempt']}:")
            for line in traced["traceback"].splitlines():
                say(f"  {line}")


@group.command()
@click.argument("job_id", type=click.UUID)
@click.option("--reason", help="Kept with the job.")
@json_option
@with_plain_errors
def cancel(job_id: UUID, *, reason: str | None, as_json: bool) -> None:
    """Cancels a job that waits, and asks one that runs to stop."""
    job, answer = job_service().cancel(job_id, EVERYTHING, CancelRequest(reason=reason).reason)
    if as_json:
        show_json({**JobAnswer.of(job), "cancel": answer.value})
    else:
        say(f"{job_id} {answer.value}")


@group.command()
@click.argument("job_id", type=click.UUID)
@click.option("--reason", help="Kept on record.")
@json_option
@with_plain_errors
def retry(job_id: UUID, *, reason: str | None, as_json: bool) -> None:
    """Queues a failed or cancelled job again, with a fresh budget of retries."""
    job = job_service().requeue(job_id, EVERYTHING, RetryRequest(reason=reason).reason)
    if as_json:
        show_json(JobAnswer.of(job))
    else:
        say(f"{job_id} {job.status}")


@group.command()
@click.argument("job_id", type=click.UUID)
@json_option
@with_plain_errors
def explain(job_id: UUID, *, as_json: bool) -> None:
    """Says why a job is not running now."""
    _, redis = current_app.extensions["health"]
    found = job_service().explain(job_id, lambda queue: heartbeats.listening_to(redis, queue), EVERYTHING)
    if as_json:
        show_json({"state": found.state, "sentence": found.sentence, "facts": found.facts})
        return
    say(found.sentence)
    if found.facts:
        show_fields(found.facts)
