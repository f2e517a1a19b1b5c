"""`jobs wait`, `jobs tail` and `jobs watch`: commands that stay until something happens."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, cast
from uuid import UUID

import click
from flask import current_app

from webapp.api.schemas import JobAnswer, JobFields
from webapp.cli.console import (
    INTERRUPTED,
    REFUSED,
    TOO_LATE,
    json_line,
    json_option,
    say,
    show_json,
    with_plain_errors,
)
from webapp.cli.jobs import COLUMNS, filtered, job_service, query_of
from webapp.flow.reach import EVERYTHING
from webapp.infra import terminal
from webapp.jobs.model import JobRow
from webapp.jobs.states import FINAL, JobStatus
from webapp.jobs.watchers import Watchers

#: Longest that a command stays, seconds: a week.
LONGEST_WAIT = 7 * 24 * 3_600.0
#: Longest and shortest time between two looks of `watch`, seconds.
LOOKS = (0.2, 3_600.0)

timeout_option = click.option(
    "--timeout",
    type=click.FloatRange(0, LONGEST_WAIT),
    default=300.0,
    show_default=True,
    help="Seconds to stay at most.",
)


@click.argument("job_id", type=click.UUID)
@timeout_option
@json_option
@with_plain_errors
def wait(job_id: UUID, *, timeout: float, as_json: bool) -> None:
    """Waits until a job is final; exit code 0 when it completed, 1 when it did not, 124 when it took too long."""
    with leaving_with(INTERRUPTED):
        job = until_final(job_id, timeout)
    show_end(job, as_json=as_json)


@click.argument("job_id", type=click.UUID)
@timeout_option
@json_option
@with_plain_errors
def tail(job_id: UUID, *, timeout: float, as_json: bool) -> None:
    """Prints every change of a job, until it is final; exit codes as of `wait`.

    Its log lines: python3 -m ops logs --job ID --follow
    """
    with leaving_with(0):
        for job in _changes(job_id, timeout):
            if as_json:
                json_line(JobAnswer.of(job))
            else:
                say(change(job))
        _exit_as(job)


@filtered
@click.option(
    "--every",
    type=click.FloatRange(*LOOKS),
    default=1.0,
    show_default=True,
    help="Seconds between two looks.",
)
@click.option(
    "--for", "seconds", type=click.FloatRange(0, LONGEST_WAIT), help="Seconds to stay; until Ctrl-C."
)
@json_option
@with_plain_errors
def watch(*, every: float, seconds: float | None, as_json: bool, tag: tuple[str, ...], **given: Any) -> None:
    """The newest jobs, looked at again and again.

    On a terminal a table that is drawn anew; elsewhere a line for each job that came or changed.
    """
    query = query_of(given, tag)
    end = time.monotonic() + (LONGEST_WAIT if seconds is None else seconds)
    known: dict[UUID, datetime] = {}
    on_terminal = sys.stdout.isatty() and not as_json
    with leaving_with(0), terminal.redrawn(enabled=on_terminal) as draw:
        while True:
            jobs = job_service().page(query.wanted, EVERYTHING, limit=query.limit, before=None).jobs
            if on_terminal:
                draw([JobFields.of(job) for job in jobs], COLUMNS)
            for job in reversed(jobs):
                if not on_terminal and known.get(job.id) != job.updated_at:
                    if as_json:
                        json_line(JobFields.of(job))
                    else:
                        say(f"{change(job)}  {job.id} {job.task}")
            known = {job.id: job.updated_at for job in jobs}
            if time.monotonic() >= end:
                return
            time.sleep(min(every, max(0.0, end - time.monotonic())))


def until_final(job_id: UUID, seconds: float) -> JobRow:
    """A job as soon as it is final, or as it is after so many seconds."""
    *_, job = _changes(job_id, seconds)
    return job


def show_end(job: JobRow, *, as_json: bool) -> None:
    """Says what became of a job, and ends the process with an exit code that says it, too."""
    if as_json:
        show_json(JobAnswer.of(job))
    else:
        say(f"{job.id} {job.status}")
        if job.status == JobStatus.COMPLETED and job.result is not None:
            json_line(JobAnswer.of(job)["result"])
        elif job.status != JobStatus.COMPLETED and job.last_error:
            say(job.last_error, err=True)
    _exit_as(job)


def change(job: JobRow) -> str:
    """A job's state in a line: since when, what, and what is known of it. Pure."""
    answer = JobAnswer.of(job)
    at = f"{job.updated_at.astimezone():%H:%M:%S}"
    match job.status:
        case JobStatus.COMPLETED:
            said = f"completed  {answer['result_note'] or terminal.in_line(answer['result'])}"
        case JobStatus.FAILED:
            said = f"failed  {job.last_error}"
        case JobStatus.CANCELLED:
            said = f"cancelled  {job.cancel_reason or ''}"
        case JobStatus.PROCESSING:
            progress = f"  {terminal.in_line(answer['progress'])}" if answer["progress"] else ""
            said = f"processing  attempt {job.attempt}{progress}"
        case _:
            due = f"  due {terminal.ago(job.run_at)}" if job.run_at > datetime.now(UTC) else ""
            error = f"  after {job.last_error}" if job.last_error else ""
            said = f"{job.status}{due}{error}"
    return f"{at} {said}".rstrip()


def _changes(job_id: UUID, seconds: float) -> Iterator[JobRow]:
    """A job as it is, then at each change until it is final or time is over."""
    end = time.monotonic() + seconds
    jobs = job_service()
    watch = cast("Watchers", current_app.extensions["watchers"]).enter(job_id)
    try:
        job = jobs.watch(job_id, EVERYTHING)
        yield job
        while job.status not in FINAL and watch.wait(end - time.monotonic()):
            before, job = job, jobs.get(job_id, EVERYTHING)
            if _told(job) != _told(before):
                yield job
    finally:
        watch.leave()


def _told(job: JobRow) -> tuple[object, ...]:
    """What a change is a change of: a row is also touched when its job is sent, and when its lease is renewed."""
    return job.status, job.attempt, job.run_at, job.progress, job.cancel_reason


@contextmanager
def leaving_with(code: int) -> Iterator[None]:
    """Ends the process with a code at Ctrl-C, without a word: who pressed it knows.

    Args:
        code: 0 where that is how one leaves.
    """
    try:
        yield
    except KeyboardInterrupt:
        click.get_current_context().exit(code)


def _exit_as(job: JobRow) -> None:
    if job.status not in FINAL:
        click.get_current_context().exit(TOO_LATE)
    if job.status != JobStatus.COMPLETED:
        click.get_current_context().exit(REFUSED)
