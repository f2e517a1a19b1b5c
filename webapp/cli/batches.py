"""`flask --app wsgi batches`: list, show, explain, close, cancel and retry batches."""

from __future__ import annotations

from typing import Any

import click
from flask.cli import AppGroup

from webapp.api.batch_answers import BatchExplanation, BatchItem, BatchState, CancelledBatch, RetriedBatch
from webapp.api.batch_schemas import BatchesQuery, SteerBatchRequest
from webapp.api.batches import batches, control
from webapp.api.schedules import maintenance_workers
from webapp.batches.model import Status
from webapp.cli.console import json_option, say, show_fields, show_json, show_table, with_plain_errors
from webapp.flow.reach import EVERYTHING

group = AppGroup("batches", help="Look at batches, close, cancel and retry them.")

_COLUMNS = (
    "id",
    "name",
    "status",
    "total",
    "completed",
    "failed",
    "cancelled",
    "open",
    "rate",
    "expected_at",
)
_BATCH = click.argument("batch", type=click.UUID)
_REASON = click.option("--reason", help="Kept on record.")


@group.command("list")
@click.option("--status", type=click.Choice([one.value for one in Status]), help="Only those that stand so.")
@click.option("--name", help="Only those of this name.")
@click.option("--limit", type=int, default=20, show_default=True, help="How many at most.")
@click.option("--cursor", help="The last id of the page before.")
@json_option
@with_plain_errors
def list_batches(*, as_json: bool, **given: Any) -> None:
    """Batches from the newest on: how each stands, and what its members have come to."""
    query = BatchesQuery.model_validate(given)
    found = batches().page(
        EVERYTHING, status=query.status, name=query.name, before=query.cursor, limit=query.limit
    )
    answers = [BatchItem.of(one) for one in found]
    if as_json:
        last = answers[-1]["id"] if len(answers) == query.limit else None
        show_json({"items": answers, "next_cursor": last})
    else:
        show_table(answers, _COLUMNS, nothing="no batches")


@group.command("show")
@_BATCH
@json_option
@with_plain_errors
def show(batch: Any, *, as_json: bool) -> None:
    """One batch, with exact counts."""
    _show(BatchState.of_one(batches().get(batch, EVERYTHING)), as_json=as_json)


@group.command("explain")
@_BATCH
@json_option
@with_plain_errors
def explain(batch: Any, *, as_json: bool) -> None:
    """Why a batch is not over."""
    answer = BatchExplanation.of(batches().explain(batch, EVERYTHING, maintenance_workers))
    if as_json:
        show_json(answer)
    else:
        say(answer["sentence"])


@group.command("close")
@_BATCH
@json_option
@with_plain_errors
def close(batch: Any, *, as_json: bool) -> None:
    """Has a batch take no more jobs."""
    answer = BatchState.of_one(batches().close(batch, EVERYTHING))
    if as_json:
        show_json(answer)
    else:
        say(
            f"batch {answer['id']} is {answer['status']}, {answer['open']} of {answer['total']} members are open"
        )


@group.command("cancel")
@_BATCH
@_REASON
@json_option
@with_plain_errors
def cancel(batch: Any, *, reason: str | None, as_json: bool) -> None:
    """Closes a batch, cancels members that wait and asks those that run to stop."""
    wanted = SteerBatchRequest(reason=reason)
    done = control().cancel(batch, EVERYTHING, wanted.reason)
    answer = CancelledBatch.of_done(done, with_content=True)
    if as_json:
        show_json(answer)
    else:
        rest = ", others follow" if done.more else ""
        say(f"{done.cancelled} members were cancelled, {done.asked} were asked to stop{rest}")


@group.command("retry")
@_BATCH
@_REASON
@json_option
@with_plain_errors
def retry(batch: Any, *, reason: str | None, as_json: bool) -> None:
    """Queues the members again that have failed by now."""
    wanted = SteerBatchRequest(reason=reason)
    done = control().retry(batch, EVERYTHING, wanted.reason)
    if as_json:
        show_json(RetriedBatch.of_done(done, with_content=True))
    else:
        say(f"{done.requeued} members are queued again{', others follow' if done.more else ''}")


def _show(answer: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        show_json(answer)
    else:
        show_fields(answer)
