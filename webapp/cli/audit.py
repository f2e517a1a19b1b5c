"""`flask --app wsgi audit`: who did what, when and why."""

from __future__ import annotations

from typing import Any, cast

import click
from flask import current_app
from flask.cli import AppGroup

from webapp.api.audit_schemas import AuditAnswer, AuditQuery
from webapp.audit.model import Event
from webapp.audit.service import AuditRecord
from webapp.cli.console import json_option, show_json, show_table, with_plain_errors

group = AppGroup("audit", help="The record of acts: who did what, when and why.")

_COLUMNS = ("id", "at", "event", "actor", "target", "changed", "reason")


@group.command("list")
@click.option("--event", type=click.Choice([one.value for one in Event]), help="Only acts of this kind.")
@click.option("--actor", help="By whom, as key:7, address:10.0.0.5 or cli:ada.")
@click.option("--target", help="To what, as job:ID, key:7 or flow:queues/default.")
@click.option("--after", help="Then or later; ISO 8601, with an offset.")
@click.option("--before", help="Before that; ISO 8601, with an offset.")
@click.option("--limit", type=int, default=20, show_default=True, help="How many at most.")
@click.option("--cursor", type=int, help="The last id of the page before.")
@json_option
@with_plain_errors
def list_events(*, as_json: bool, **options: Any) -> None:
    """Acts on record, the newest first."""
    query = AuditQuery.model_validate({name: value for name, value in options.items() if value is not None})
    record = cast("AuditRecord", current_app.extensions["audit"])
    events = record.page(query.wanted, last=query.cursor, limit=query.limit)
    answers = [AuditAnswer.of(event) for event in events]
    if as_json:
        following = events[-1].id if len(events) == query.limit else None
        show_json({"items": answers, "next_cursor": following})
    else:
        show_table([_row_of(answer) for answer in answers], _COLUMNS, nothing="no acts")


def _row_of(answer: dict[str, Any]) -> dict[str, Any]:
    """A line of the table: actor and target as options name them."""
    kind = answer["target_kind"]
    target = f"{kind}:{answer['target_id']}" if kind is not None else None
    name = f" ({answer['actor_name']})" if answer["actor_kind"] == "key" else ""
    return answer | {"actor": f"{answer['actor_kind']}:{answer['actor_id']}{name}", "target": target}
