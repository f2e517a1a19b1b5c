"""What follows from counted ends and from closing: batches that are locked are judged, and what tells of them is made in the same transaction.

Functions take a connection and never commit.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

from sqlalchemy import Connection
from uuid_utils.compat import uuid7

from webapp.batches import listing, store
from webapp.batches.decisions import decide
from webapp.batches.events import callback_payload, job_of
from webapp.batches.model import Event, paced
from webapp.batches.store import Judged
from webapp.flow.model import FlowRules
from webapp.flow.reach import EVERYTHING
from webapp.infra.postgres.literals import json_of
from webapp.infra.telemetry import metrics
from webapp.jobs import callbacks, insert
from webapp.jobs.handlers import DEFAULT_QUEUE, registry
from webapp.jobs.service import in_lane

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Followed:
    """What followed in a transaction.

    Args:
        events: how many jobs were made for each event.
        callbacks: how many that call an URL.
        ended: batches that are over from now on.
    """

    events: dict[Event, int] = field(default_factory=dict)
    callbacks: int = 0
    ended: list[UUID] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class CallbackTerms:
    """How callbacks of batches are stored.

    Args:
        timeout: seconds an attempt may take, where the handler does not say.
    """

    timeout: float


def judge(connection: Connection, ids: Sequence[UUID], rules: FlowRules, terms: CallbackTerms) -> Followed:
    """Judges batches whose rows the transaction has locked, and does what follows.

    Jobs that tell of a batch are stored with it or not at all, and the dispatcher sends them. They are no members, and no bound of a
    queue refuses them.

    Args:
        rules: which queues and tasks have limits.
    """
    followed = Followed()
    for one in store.standing(connection, ids) if ids else ():
        _judge_one(connection, one, rules, terms, followed)
    return followed


def tell(followed: Followed) -> None:
    """Counts what followed, once it is committed."""
    for event, number in followed.events.items():
        metrics.batch_events.labels(event.value).inc(number)
    made = sum(followed.events.values()) + followed.callbacks
    if made:
        metrics.jobs_created.inc(made)
        metrics.callbacks_created.inc(followed.callbacks)
    if followed.ended:
        metrics.batches_ended.inc(len(followed.ended))
        logger.info("batches are over", extra={"batches": len(followed.ended)})


def _judge_one(
    connection: Connection, one: Judged, rules: FlowRules, terms: CallbackTerms, followed: Followed
) -> None:
    totals = one.standing.totals
    if (pace := paced(one.pace, one.now, totals.total - totals.open)) is not None:
        store.keep_pace(connection, one.id, pace)
    decision = decide(one.standing)
    if decision.is_nothing:
        return
    if decision.reopens:
        store.reopen(connection, one.id)
    if decision.ends:
        store.end(connection, one.id, decision.status)
        followed.ended.append(one.id)
        if _call_back(connection, one.id, terms):
            followed.callbacks += 1
    _make_events(connection, one, decision.events, rules)
    for event in decision.events:
        followed.events[event] = followed.events.get(event, 0) + 1


def _make_events(connection: Connection, one: Judged, events: Sequence[Event], rules: FlowRules) -> None:
    if not events:
        return
    owner = store.owner(connection, one.id)
    made: dict[Event, UUID] = {}
    for event in events:
        job = job_of(
            owner.options[event.option],
            event,
            job_id=uuid7(),
            batch=one.id,
            name=owner.name,
            totals=one.standing.totals,
            tenant=owner.tenant,
            submitted_by=owner.submitted_by,
            request_id=owner.request_id,
            traceparent=owner.traceparent,
        )
        insert.insert_once(connection, in_lane(job, rules), dispatched=False)
        made[event] = job.id
    store.note_events(connection, one.id, made)


def _call_back(connection: Connection, batch_id: UUID, terms: CallbackTerms) -> bool:
    """Stores the job that calls the URL of a batch that is over; False where it has none."""
    batch = listing.find(connection, batch_id, EVERYTHING)
    if batch is None or batch.callback_url is None:
        return False
    found = registry.get(callbacks.TASK)
    values = {
        "task": callbacks.TASK,
        "payload": json_of(callback_payload(batch)),
        "queue": found.queue if found else DEFAULT_QUEUE,
        "max_retries": len(callbacks.BACKOFF),
        "timeout": (found and found.timeout) or terms.timeout,
        "backoff": json.dumps(callbacks.BACKOFF),
    }
    return store.call_back(connection, batch_id, uuid7(), values)
