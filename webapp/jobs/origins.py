"""Where a submission comes from: a request that is being answered, or a job that runs and submits another."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import Connection, text

from webapp.access.store import MOST_TENANTS
from webapp.flow.reach import Reach
from webapp.flow.tenant import DEFAULT, DEFAULT_SLUG, Tenant
from webapp.infra.postgres.sql_files import read_sql
from webapp.infra.telemetry.logs import bound_field
from webapp.infra.telemetry.traceparent import here
from webapp.jobs.errors import AttemptOver
from webapp.jobs.submission import Origin

_PARENT = text(read_sql(__file__, "parent"))


def of_request(reach: Reach) -> Origin:
    """Who submits now: the request that is being answered, its place in a trace, and the key that was shown."""
    request_id = bound_field("request_id")
    return Origin(str(request_id) if request_id is not None else None, here(), reach, reach.key)


def of_attempt(connection: Connection, job_id: UUID, attempt: int, traceparent: str | None) -> Origin:
    """What a job gives to those that are submitted from inside of it: its tenant, its request and trace, and the key by which it came.

    It may submit to all queues of its tenant, whatever queues that key has: its handler is the owner's own code.

    Args:
        traceparent: the attempt's own place in a trace; None: the job's.

    Raises:
        AttemptOver: the attempt has lost its lease, or has ended.
    """
    found = connection.execute(
        _PARENT, {"id": job_id, "attempt": attempt, "most": MOST_TENANTS}
    ).one_or_none()
    if found is None:
        raise AttemptOver(job_id, attempt)
    tenant, guests = Tenant(found.id, found.slug), frozenset(found.guests)
    is_default = tenant.id == DEFAULT.id
    reach = Reach(
        tenant,
        None,
        others=(guests | {DEFAULT_SLUG}) - {tenant.slug},
        is_alone=is_default and not guests,
        since=None if is_default else found.created_at,
        key=found.submitted_by,
    )
    return Origin(found.request_id, traceparent or found.traceparent, reach, found.submitted_by)
