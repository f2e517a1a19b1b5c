"""`/audit`: the record of acts, as a page, or all of it as lines of JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from flask import Blueprint, Response, current_app, jsonify, request

from webapp.access.model import Scope
from webapp.api.audit_schemas import AuditAnswer, AuditPage, AuditQuery
from webapp.api.callers import reach
from webapp.api.examples import AUDIT
from webapp.api.jobs import query_values
from webapp.api.openapi import documented
from webapp.audit.model import OF_ALL, Whose
from webapp.audit.service import AuditRecord
from webapp.infra.postgres import deadlines

if TYPE_CHECKING:
    from webapp.api.work_slots import WorkSlots
    from webapp.audit.model import AuditFilter

bp = Blueprint("audit", __name__)

LINES = "application/x-ndjson"
#: Most events in one answer of lines.
MOST_LINES = 100_000
#: Events that are read at once for them.
AT_ONCE = 1_000
#: How long each of these readings may take, seconds.
READ_BUDGET = 3.0


def audit_record() -> AuditRecord:
    """The record of this application."""
    return cast("AuditRecord", current_app.extensions["audit"])


@bp.get("/audit")
@documented({200: AuditPage}, 422, 503, need=Scope.AUDIT_READ, query=AuditQuery, examples=AUDIT)
def index() -> Response:
    """Who did what, when and why, the newest first: what those of the caller's tenant did.

    With `Accept: application/x-ndjson` each act is a line of JSON, and at most 100,000 are sent; `limit` does not count then. Go on
    with the `id` of the last line as `cursor`.
    """
    query = AuditQuery.model_validate(query_values())
    wanted = replace(query.wanted, whose=_whose())
    if request.accept_mimetypes.best_match(["application/json", LINES]) == LINES:
        slots: WorkSlots = current_app.extensions["work_slots"]
        return Response(_lines(audit_record(), slots, wanted, query.cursor), mimetype=LINES)
    events = audit_record().page(wanted, last=query.cursor, limit=query.limit)
    return jsonify(
        {
            "items": [AuditAnswer.of(event) for event in events],
            "next_cursor": events[-1].id if len(events) == query.limit else None,
        }
    )


def _whose() -> Whose:
    """Of which tenant the caller sees acts; where there is one, of all."""
    within = reach()
    return OF_ALL if within.number is None else Whose(within.number if within.is_guest else None)


def _lines(record: AuditRecord, slots: WorkSlots, wanted: AuditFilter, last: int | None) -> Iterator[str]:
    """Reads a part at a time, each with a slot of its own, so that a slow reader holds none."""
    for _ in range(MOST_LINES // AT_ONCE):
        with slots.slot(), deadlines.within(READ_BUDGET):
            events = record.page(wanted, last=last, limit=AT_ONCE)
        yield from (json.dumps(AuditAnswer.of(event), ensure_ascii=False) + "\n" for event in events)
        if len(events) < AT_ONCE:
            return
        last = events[-1].id
