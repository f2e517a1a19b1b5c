"""The jobs that tell of a batch: kept with it, complete, when it is made, so that making them later can be refused nothing. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any
from uuid import UUID

from webapp.batches.model import BatchRow, Event
from webapp.flow.tenant import Tenant
from webapp.groups.model import Totals
from webapp.infra.jsontext import iso
from webapp.infra.postgres.literals import json_of
from webapp.jobs import callbacks
from webapp.jobs.options import PLAIN, Terms
from webapp.jobs.submission import NewJob

#: What of the payload says of which batch it is; a payload that has it already is refused.
KEY = "batch"
#: Terms that cannot be meant for a job that is made at a time which is not known.
_KEPT_TERMS = ("priority", "delay", "expires_in", "backoff", "tags", "callback_url", "key")


def sample(name: str | None, event: Event) -> dict[str, Any]:
    """What a payload will have under `KEY`, as an example: a handler's model must take it."""
    return about(UUID(int=0), name, event, Totals(1, 1, 0, 0, 0))


def about(batch_id: UUID, name: str | None, event: Event, totals: Totals) -> dict[str, Any]:
    """What a payload says of a batch.

    Example:
        >>> about(UUID(int=1), "import", Event.SUCCESS, Totals(2, 2, 0, 0, 0))["totals"]
        {'total': 2, 'completed': 2, 'failed': 0, 'cancelled': 0}
    """
    counts = {field: getattr(totals, field) for field in ("total", "completed", "failed", "cancelled")}
    return {"id": str(batch_id), "name": name, "event": event.value, "totals": counts}


def document_of(job: NewJob, payload: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept of an event's job.

    Args:
        job: as it is stored, but for its payload.
        payload: what was given. It is kept as text: `jsonb` would keep its numbers in a way of its own.
    """
    terms = None if job.terms is None else asdict(job.terms)
    return {
        "task": job.task,
        "queue": job.queue,
        "max_retries": job.max_retries,
        "timeout": job.timeout,
        "payload": json_of(dict(payload)),
        "terms": terms and {name: terms[name] for name in _KEPT_TERMS},
    }


def job_of(
    document: Mapping[str, Any],
    event: Event,
    *,
    job_id: UUID,
    batch: UUID,
    name: str | None,
    totals: Totals,
    tenant: Tenant,
    submitted_by: int | None,
    request_id: str | None = None,
    traceparent: str | None = None,
) -> NewJob:
    """The job of an event.

    Args:
        document: what was kept of it.
        tenant, submitted_by, request_id, traceparent: of the batch.
    """
    payload = json.loads(document["payload"]) | {KEY: about(batch, name, event, totals)}
    kept = document.get("terms")
    terms = None if kept is None else Terms(**(kept | {"tags": tuple(kept["tags"])}))
    return NewJob(
        id=job_id,
        task=document["task"],
        payload=json_of(payload),
        queue=document["queue"],
        max_retries=document["max_retries"],
        timeout=document["timeout"],
        idempotency_key=None,
        fingerprint=batch.bytes,
        request_id=request_id,
        traceparent=traceparent,
        terms=terms if terms != PLAIN else None,
        tenant=tenant,
        submitted_by=submitted_by,
    )


def callback_payload(batch: BatchRow) -> dict[str, Any]:
    """The payload of the `http` job that tells of a batch's end, in the form in which callbacks of jobs are."""
    finished_at = batch.finished_at or batch.now
    counts = {field: getattr(batch.totals, field) for field in ("total", "completed", "failed", "cancelled")}
    data = {
        "id": str(batch.id),
        "name": batch.name,
        "status": batch.status.value,
        **counts,
        "created_at": iso(batch.created_at),
        "finished_at": iso(finished_at),
    }
    body = {"type": f"batch.{batch.status.value}", "timestamp": iso(finished_at), "data": data}
    return {"task": callbacks.TASK, "url": batch.callback_url, "json": body, "retry_on": ["3xx", "4xx"]}
