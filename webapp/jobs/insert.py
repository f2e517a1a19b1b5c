"""The store's statements by which jobs come in, one or many, and the idempotency keys that let them in once.

Like `webapp.jobs.store`, of which this is a part: functions take a connection and never commit. A job with a key is
stored in the statement that takes the key, so there is never one without the other. A key lives in a table of its own
for IDEMPOTENCY_TTL, however soon its job is pruned; one that has run out is taken over by the next request.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from webapp.flow.reach import EVERYTHING
from webapp.flow.tenant import told
from webapp.infra.postgres.literals import array_of, kept_as_sent, optional_array_of, text_array_of
from webapp.infra.postgres.sql_files import read_sql
from webapp.jobs.errors import KeyOfPruned, KeyRace, KeyReused
from webapp.jobs.insert_statements import INSERT_MANY, INSERT_ONE, Has, group_statement, has_of
from webapp.jobs.model import JobRow
from webapp.jobs.options import PLAIN, Terms
from webapp.jobs.store import find, find_ended
from webapp.jobs.submission import KEY_TTL, Accepted, NewJob

#: Longest a statement of a batch may run, milliseconds: ten thousand rows on a busy machine.
BATCH_TIMEOUT_MS = 15_000
#: The table of idempotency keys.
KEYS = "idempotency_keys"


@dataclass(frozen=True, slots=True)
class KeyOwner:
    """Who owns an idempotency key; `job` is None when it was pruned since."""

    job_id: UUID
    fingerprint: bytes
    job: JobRow | None


#: A job that is stored now, or else who owns its key.
Stored = tuple[JobRow | None, KeyOwner | None]


def insert_once(
    connection: Connection, job: NewJob, *, dispatched: bool, key_ttl: float = KEY_TTL
) -> JobRow | None:
    """Stores a job unless its idempotency key is taken, or it is there already; None when it is.

    Args:
        dispatched: the caller publishes a message right after the commit, if the row says that it was dispatched:
            a job that is due later is left to the dispatcher.
        key_ttl: seconds until its key can be used for another job.
    """
    as_sent = kept_as_sent(job.payload)
    values = _values(job, dispatched=dispatched, terms=job.terms, as_sent=as_sent)
    if job.idempotency_key is not None:
        values["key_ttl"] = key_ttl
    has = Has(
        job.idempotency_key is not None,
        job.terms is not None,
        as_sent is not None,
        job.lane is not None,
        job.is_owned,
    )
    rows = INSERT_ONE[has].run(connection, values).rows
    return new_row(job, *rows[0]) if rows else None


def insert_group(
    connection: Connection, jobs: Sequence[NewJob], *, dispatched: Sequence[bool], key_ttl: float = KEY_TTL
) -> list[JobRow | None]:
    """Stores jobs by one statement, as `insert_once` stores each; None for one that is there already, or whose key is taken.

    Args:
        jobs: all of them with a key, each with another one, or all without.
        dispatched: as there, for each job.
        key_ttl: as there.
    """
    as_sent = [kept_as_sent(job.payload) for job in jobs]
    has = has_of(jobs, as_sent)
    values: dict[str, Any] = {}
    # In the order of their keys, as a batch: two groups with the same keys must not wait for each other in a circle.
    for row, number in enumerate(
        sorted(range(len(jobs)), key=lambda number: jobs[number].idempotency_key or "")
    ):
        job = jobs[number]
        terms = (job.terms or PLAIN) if has.terms else None
        of_one = _values(job, dispatched=dispatched[number], terms=terms, as_sent=as_sent[number])
        values |= {f"{name}_{row}": value for name, value in (of_one | {"key_ttl": key_ttl}).items()}
    stored = group_statement(len(jobs), has).run(connection, values)
    times = {row[0]: row[1:] for row in stored.rows}
    return [new_row(job, *times[job.id]) if job.id in times else None for job in jobs]


def _values(job: NewJob, *, dispatched: bool, terms: Terms | None, as_sent: str | None) -> dict[str, Any]:
    values = {
        "id": job.id,
        "task": job.task,
        "payload": job.payload,
        "queue": job.queue,
        "max_retries": job.max_retries,
        "timeout": job.timeout,
        "idempotency_key": job.idempotency_key,
        "fingerprint": job.fingerprint,
        "request_id": job.request_id,
        "traceparent": job.traceparent,
        "dispatched": dispatched,
        "as_sent": as_sent,
        "lane": job.lane,
        "tenant": job.tenant.id,
        "submitted_by": job.submitted_by,
        "group": job.group,
    }
    if terms is not None:
        values |= {
            "priority": terms.priority,
            "run_at": terms.run_at,
            "delay": terms.delay,
            "expires_at": terms.expires_at,
            "expires_in": terms.expires_in,
            "backoff": terms.backoff,
            "tags": list(terms.tags),
            "callback_url": terms.callback_url,
            "job_key": terms.key,
        }
    return values


def new_row(
    job: NewJob,
    created_at: datetime,
    dispatched_at: datetime | None,
    run_at: datetime | None = None,
    expires_at: datetime | None = None,
) -> JobRow:
    """The row as it was stored: everything but its times is known, and reading it back would cost half the insert."""
    terms = job.terms or PLAIN
    return JobRow(
        id=job.id,
        task=job.task,
        payload=json.loads(job.payload),
        queue=job.queue,
        priority=terms.priority,
        status="queued",
        attempt=0,
        retry_count=0,
        max_retries=job.max_retries,
        timeout=job.timeout,
        run_at=run_at or created_at,
        dispatched_at=dispatched_at,
        lease_expires_at=None,
        worker_id=None,
        idempotency_key=job.idempotency_key and told(job.idempotency_key),
        result=None,
        last_error=None,
        created_at=created_at,
        updated_at=created_at,
        last_attempt_at=None,
        finished_at=None,
        tags=list(terms.tags),
        expires_at=expires_at,
        backoff=json.loads(terms.backoff) if terms.backoff else None,
        callback_url=terms.callback_url,
        callback_job_id=None,
        cancel_reason=None,
        progress=None,
        result_note=None,
        key=terms.key and told(terms.key),
        tenant=job.tenant.slug,
        submitted_by=job.submitted_by,
        group_id=job.group,
        request_id=job.request_id,
        traceparent=job.traceparent,
        unique_key=None if job.unique is None else told(job.unique.key),
    )


_OWNER, _OWNERS, _OWN, _PRUNE_KEYS = (
    text(read_sql(__file__, "keys", name)) for name in ("owner", "owners", "own", "prune")
)


def find_by_key(connection: Connection, key: str) -> KeyOwner | None:
    """Who owns an idempotency key; None when it is free or has run out."""
    row = connection.execute(_OWNER, {"key": key}).first()
    return None if row is None else KeyOwner(row[0], bytes(row[1]), find(connection, row[0], EVERYTHING))


def insert_or_find(connection: Connection, job: NewJob, *, dispatched: bool, key_ttl: float) -> Stored:
    """Stores a job, or finds the one that is in its way: its key's owner, or itself from a first try."""
    inserted = insert_once(connection, job, dispatched=dispatched, key_ttl=key_ttl)
    if inserted is not None:
        return inserted, None
    if job.idempotency_key is not None:
        return None, find_by_key(connection, job.idempotency_key)
    row = find(connection, job.id, EVERYTHING)
    return None, KeyOwner(job.id, job.fingerprint, row) if row is not None else None


def insert_again_or_find(connection: Connection, job: NewJob, *, dispatched: bool, key_ttl: float) -> Stored:
    """The same after a try whose answer was lost, in one transaction: nothing is stored where that try's job has ended meanwhile.

    No index spans the jobs that live and those that ended, so an ended one is in no INSERT's way. Once this one's row is in the
    way of every other with its id, a look that begins later sees what the first try has left.
    """
    with connection.begin_nested() as savepoint:
        stored = insert_or_find(connection, job, dispatched=dispatched, key_ttl=key_ttl)
        if stored[0] is None or (ended := find_ended(connection, job.id)) is None:
            return stored
        savepoint.rollback()
    return None, KeyOwner(job.id, job.fingerprint, ended)


#: Most of payloads that one statement carries, characters: on its way it is copied six times, by psycopg2 and libpq.
STATEMENT_CHARACTERS = 2 * 1024**2


def allow_time(connection: Connection) -> None:
    """Gives the statements of this transaction the time that a batch takes."""
    connection.execute(text(f"SET LOCAL statement_timeout = {BATCH_TIMEOUT_MS}"))


def insert_many(
    connection: Connection, jobs: Sequence[NewJob], *, dispatched: bool, key_ttl: float = KEY_TTL
) -> dict[UUID, bool]:
    """Stores jobs, except those whose idempotency key is taken; of the same key twice, the first one is stored.

    Args:
        dispatched: the caller publishes messages right after the commit, for the jobs that are due.
        key_ttl: seconds until their keys can be used for other jobs.

    Returns:
        The ids that were stored, each with whether a message is to be published for it.
    """
    stored: dict[UUID, bool] = {}
    for some in in_statements(jobs):
        stored |= _insert_some(connection, some, dispatched=dispatched, key_ttl=key_ttl)
    return stored


def in_statements(jobs: Sequence[NewJob]) -> Iterator[Sequence[NewJob]]:
    """The jobs of each statement of a batch: all of them, unless their payloads are large.

    Then they come in the order of their keys, as one statement locks these; of the same key twice, the first one is before.
    """
    if sum(len(job.payload) for job in jobs) <= STATEMENT_CHARACTERS:
        yield jobs
        return
    some: list[NewJob] = []
    size = 0
    for job in sorted(jobs, key=lambda job: (job.idempotency_key or "", job.id)):
        if some and size + len(job.payload) > STATEMENT_CHARACTERS:
            yield some
            some, size = [], 0
        some.append(job)
        size += len(job.payload)
    yield some


def _insert_some(
    connection: Connection, jobs: Sequence[NewJob], *, dispatched: bool, key_ttl: float
) -> dict[UUID, bool]:
    """Stores jobs with one statement: the one that writes what these jobs have, and no more."""
    as_sent = [kept_as_sent(job.payload) for job in jobs]
    given = has_of(jobs, as_sent)
    values = plain_values(jobs) | {"dispatched": dispatched}
    of_some: tuple[Callable[[], dict[str, Any]], ...] = (
        lambda: {"key_ttl": key_ttl},
        lambda: term_values([job.terms or PLAIN for job in jobs]),
        lambda: {"as_sent": text_array_of(as_sent)},
        lambda: {"lanes": optional_array_of(job.lane for job in jobs)},
        # They are one caller's, and of one group.
        lambda: {"tenant": jobs[0].tenant.id, "submitted_by": jobs[0].submitted_by, "group": jobs[0].group},
    )
    for is_given, more in zip(given, of_some, strict=True):
        values |= more() if is_given else {}
    return {row[0]: row[1] for row in connection.execute(INSERT_MANY[given], values)}


def plain_values(jobs: Sequence[NewJob]) -> dict[str, Any]:
    """What every statement about several jobs is given of them; requests are those of the first one."""
    return {
        "ids": array_of(job.id for job in jobs),
        "tasks": text_array_of(job.task for job in jobs),
        "payloads": text_array_of(job.payload for job in jobs),
        "queues": text_array_of(job.queue for job in jobs),
        "max_retries": array_of(job.max_retries for job in jobs),
        "timeouts": array_of(job.timeout for job in jobs),
        "keys": text_array_of(job.idempotency_key for job in jobs),
        "fingerprints": text_array_of(job.fingerprint.hex() for job in jobs),
        "request_id": jobs[0].request_id,
        "traceparent": jobs[0].traceparent,
    }


def term_values(terms: Sequence[Terms]) -> dict[str, list[Any]]:
    """What it is given of their terms."""
    return {
        "priorities": [one.priority for one in terms],
        "run_ats": [one.run_at for one in terms],
        "delays": [one.delay for one in terms],
        "expiries": [one.expires_at for one in terms],
        "expires_in": [one.expires_in for one in terms],
        "backoffs": [one.backoff for one in terms],
        # An array of arrays would have to be of one length, so tags travel as JSON.
        "tags": [json.dumps(one.tags) for one in terms],
        "callback_urls": [one.callback_url for one in terms],
        "job_keys": [one.key for one in terms],
    }


def find_by_keys(connection: Connection, keys: Sequence[str]) -> dict[str, tuple[UUID, bytes]]:
    """The jobs that own these idempotency keys, with the fingerprints of their requests."""
    rows = connection.execute(_OWNERS, {"keys": list(keys)})
    return {row[0]: (row[1], bytes(row[2])) for row in rows}


def accepted(job: NewJob, inserted: JobRow | None, owner: KeyOwner | None) -> Accepted:
    """What a submission has come to. Pure.

    Args:
        job: what it asked for.
        inserted, owner: what became of it.

    Raises:
        KeyRace: neither is known.
        KeyReused: its idempotency key belongs to another request.
        KeyOfPruned: the job that owns it is gone.
    """
    if inserted is not None:
        return Accepted(inserted, created=True, is_told=inserted.dispatched_at is not None)
    if owner is None:
        raise KeyRace(job.idempotency_key or "")
    if owner.fingerprint != job.fingerprint:
        raise KeyReused(job.idempotency_key or "", owner.job_id)
    if owner.job is None:
        raise KeyOfPruned(job.idempotency_key or "", owner.job_id)
    mine = owner.job_id == job.id
    return Accepted(owner.job, created=mine, is_told=mine and owner.job.dispatched_at is not None)


def own_keys(connection: Connection, owners: Sequence[tuple[NewJob, UUID]], *, key_ttl: float) -> bool:
    """Has jobs own the idempotency keys of requests that made none of their own; False where one was taken meanwhile.

    Args:
        owners: what such a request asked for, and the job that answers it; no key is there twice.
        key_ttl: seconds until the keys can be used for other jobs.
    """
    keyed = [one for one in owners if one[0].idempotency_key is not None]
    if not keyed:
        return True
    values = {
        "keys": text_array_of(job.idempotency_key for job, _ in keyed),
        "fingerprints": text_array_of(job.fingerprint.hex() for job, _ in keyed),
        "ids": array_of(owner for _, owner in keyed),
        "key_ttl": key_ttl,
    }
    return connection.execute(_OWN, values).rowcount == len(keyed)


def prune_keys(connection: Connection, limit: int) -> int:
    """Deletes idempotency keys that have run out; returns how many."""
    return connection.execute(_PRUNE_KEYS, {"limit": limit}).rowcount
