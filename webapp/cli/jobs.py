"""`flask --app wsgi jobs`: list, show, submit, cancel, retry, wait."""

from __future__ import annotations

import time
from typing import Any, cast
from uuid import UUID

import click
from flask import current_app
from flask.cli import AppGroup

from webapp.api.page_schemas import PageQuery
from webapp.api.schemas import AttemptAnswer, JobAnswer, SubmitRequest
from webapp.api.strictjson import read_json
from webapp.cli.console import (
    REFUSED,
    TOO_LATE,
    json_option,
    say,
    show_fields,
    show_json,
    show_table,
    with_plain_errors,
)
from webapp.jobs.errors import TaskNotJudged
from webapp.jobs.service import Jobs
from webapp.jobs.states import FINAL, JobStatus
from webapp.jobs.watchers import Watchers

group = AppGroup("jobs", help="Submit jobs, look at them, control them.")

#: Columns of the table of jobs.
COLUMNS = ("id", "status", "task", "queue", "attempt", "created_at", "last_error")
#: Most attempts that are shown.
ATTEMPTS = 1_000


def _jobs() -> Jobs:
    return cast("Jobs", current_app.extensions["jobs"])


@group.command("list")
@click.option("--status", type=click.Choice([status.value for status in JobStatus]))
@click.option("--task")
@click.option("--queue")
@click.option("--tag", multiple=True, help="May be given more than once; a job has all of them.")
@click.option("--created-after", help="ISO 8601, with an offset.")
@click.option("--created-before", help="ISO 8601, with an offset.")
@click.option("--payload", help="JSON object that the payload contains.")
@click.option("--limit", type=int, default=20, show_default=True)
@click.option("--cursor", help="The last id of the page before.")
@json_option
@with_plain_errors
def list_jobs(*, as_json: bool, tag: tuple[str, ...], **given: Any) -> None:
    """Jobs, the newest first."""
    asked = {name: value for name, value in given.items() if value is not None}
    query = PageQuery.model_validate(asked | {"tag": list(tag)})
    page = _jobs().page(query.wanted, limit=query.limit, before=query.cursor)
    answers = [JobAnswer.of(row) for row in page.jobs]
    if as_json:
        show_json({"items": answers, "total": page.total, "total_is_estimate": page.is_estimate})
    else:
        show_table(answers, COLUMNS, nothing="no jobs")
        say(f"{len(answers)} of {'about ' if page.is_estimate else ''}{page.total}", err=True)
    if page.short is not None:
        say(f"there may be more: go on with --cursor {page.next_before}", err=True)


@group.command()
@click.argument("job_id", type=click.UUID)
@click.option("--attempts", "with_attempts", is_flag=True, help="Its attempts as well, with their errors.")
@json_option
@with_plain_errors
def show(job_id: UUID, *, with_attempts: bool, as_json: bool) -> None:
    """One job."""
    answer = JobAnswer.of(_jobs().get(job_id))
    rows, _ = _jobs().attempts(job_id, before=None, limit=ATTEMPTS) if with_attempts else ([], False)
    attempts = [AttemptAnswer.of(row) for row in rows]
    if as_json:
        show_json(answer | ({"attempts": attempts} if with_attempts else {}))
        return
    show_fields(answer)
    if with_attempts:
        say("")
        columns = ("attempt", "outcome", "started_at", "duration", "worker_id", "error_type", "error_message")
        show_table(attempts, columns, nothing="no attempts")


@group.command()
@click.argument("payload")
@click.option("--key", "idempotency_key", help="Idempotency key.")
@click.option("--queue")
@click.option("--priority", type=int, help="0 to 9, higher first.")
@click.option("--delay", type=float, help="Seconds.")
@click.option("--run-at", help="ISO 8601, with an offset.")
@click.option("--expires-at", help="ISO 8601, with an offset.")
@click.option("--max-retries", type=int)
@click.option("--timeout", type=float, help="Seconds an attempt may take.")
@click.option("--tag", multiple=True, help="May be given more than once.")
@json_option
@with_plain_errors
def submit(payload: str, *, tag: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Stores a job; PAYLOAD is a JSON object such as '{"task": "sleep", "seconds": 2}'."""
    asked = {name: value for name, value in options.items() if value is not None}
    wanted = SubmitRequest.model_validate(
        {"payload": read_json(payload.encode("utf-8", "replace"))}
        | asked
        | ({"tags": list(tag)} if tag else {})
    )
    if not _jobs().can_judge(wanted.payload):
        raise TaskNotJudged(wanted.payload["task"])
    accepted = _jobs().submit(wanted.submission(wanted.idempotency_key))
    _jobs().flush()
    if as_json:
        show_json(JobAnswer.of(accepted.job))
    else:
        say(f"{accepted.job.id}{'' if accepted.created else ' (was there before)'}")


@group.command()
@click.argument("job_id", type=click.UUID)
@click.option("--reason", help="Kept with the job.")
@json_option
@with_plain_errors
def cancel(job_id: UUID, *, reason: str | None, as_json: bool) -> None:
    """Cancels a job that waits, and asks one that runs to stop."""
    job, answer = _jobs().cancel(job_id, reason)
    if as_json:
        show_json({**JobAnswer.of(job), "cancel": answer.value})
    else:
        say(f"{job_id} {answer.value}")


@group.command()
@click.argument("job_id", type=click.UUID)
@json_option
@with_plain_errors
def retry(job_id: UUID, *, as_json: bool) -> None:
    """Queues a failed or cancelled job again, with a fresh budget of retries."""
    job = _jobs().requeue(job_id)
    if as_json:
        show_json(JobAnswer.of(job))
    else:
        say(f"{job_id} {job.status}")


@group.command()
@click.argument("job_id", type=click.UUID)
@click.option("--timeout", type=float, default=300.0, show_default=True, help="Seconds.")
@json_option
@with_plain_errors
def wait(job_id: UUID, *, timeout: float, as_json: bool) -> None:
    """Waits until a job is final; exit code 0 when it completed, 1 when it did not, 124 when it took too long."""
    end = time.monotonic() + timeout
    jobs = _jobs()
    watch = cast("Watchers", current_app.extensions["watchers"]).enter(job_id)
    try:
        job = jobs.watch(job_id)
        while job.status not in FINAL and watch.wait(end - time.monotonic()):
            job = jobs.get(job_id)
    finally:
        watch.leave()
    if as_json:
        show_json(JobAnswer.of(job))
    else:
        say(f"{job_id} {job.status}")
    if job.status not in FINAL:
        click.get_current_context().exit(TOO_LATE)
    if job.status != JobStatus.COMPLETED:
        click.get_current_context().exit(REFUSED)
