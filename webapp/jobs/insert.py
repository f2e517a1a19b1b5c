"""The store's statements by which jobs come in, one or many, and the idempotency keys that let them in once.

Like `webapp.jobs.store`, of which this is a part: functions take a connection and never commit. A job with a key is
stored in the statement that takes the key, so there is never one without the other. A key lives in a table of its own
for IDEMPOTENCY_TTL, however soon its job is pruned; one that has run out is taken over by the next request.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import product
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from webapp.infra.postgres.engine import Statement
from webapp.infra.postgres.literals import array_of, kept_as_sent, text_array_of
from webapp.jobs.columns import FIELDS, columns_of
from webapp.jobs.model import JobRow
from webapp.jobs.options import PLAIN, Terms
from webapp.jobs.store import find
from webapp.jobs.submission import KEY_TTL, NewJob

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


_COLUMNS = """id, task, payload, queue, max_retries, timeout, idempotency_key, fingerprint, request_id, traceparent,
    dispatched_at"""
_AS_SENT_COLUMN = ", payload_as_sent"
_TERM_COLUMNS = ", priority, run_at, expires_at, backoff, tags, callback_url"
_DUE = "greatest(CAST(:run_at AS timestamptz), now() + make_interval(secs => :delay))"
_VALUES = """:id, :task, CAST(:payload AS jsonb), :queue, :max_retries, :timeout, :idempotency_key, :fingerprint,
            :request_id, :traceparent, CASE WHEN :dispatched THEN now() END"""
_VALUES_WITH_TERMS = (
    _VALUES.replace("WHEN :dispatched", f"WHEN :dispatched AND {_DUE} <= now()")
    + f""",
            :priority, {_DUE},
            coalesce(CAST(:expires_at AS timestamptz), {_DUE} + make_interval(secs => :expires_in)),
            CAST(:backoff AS jsonb), CAST(:tags AS text[]), :callback_url"""
)

#: A key that is free or has run out; the WHERE leaves one that lives to its owner, and RETURNING is then empty.
_TAKE_KEY = """ON CONFLICT (key) DO UPDATE SET fingerprint = excluded.fingerprint, job_id = excluded.job_id,
                created_at = now(), expires_at = excluded.expires_at
          WHERE taken.expires_at <= now()
        RETURNING job_id"""


def _insert_once(*, keyed: bool, terms: bool, as_sent: bool) -> str:
    key = f"""
    WITH mine AS (
        INSERT INTO idempotency_keys AS taken (key, fingerprint, job_id, expires_at)
        VALUES (:idempotency_key, :fingerprint, :id, now() + make_interval(secs => :key_ttl))
        {_TAKE_KEY})"""
    values = (_VALUES_WITH_TERMS if terms else _VALUES) + (", CAST(:as_sent AS json)" if as_sent else "")
    return f"""{key if keyed else ""}
    INSERT INTO jobs ({_COLUMNS}{_TERM_COLUMNS if terms else ""}{_AS_SENT_COLUMN if as_sent else ""})
    {f"SELECT {values} FROM mine" if keyed else f"VALUES ({values})"}
    ON CONFLICT (id) DO NOTHING
    RETURNING created_at, dispatched_at{", run_at, expires_at" if terms else ""}"""


#: By whether the job has a key, terms, and a payload to be kept as it was sent: one without pays for none of them.
_INSERT_ONCE = {
    (keyed, terms, as_sent): Statement(_insert_once(keyed=keyed, terms=terms, as_sent=as_sent))
    for keyed, terms, as_sent in product((False, True), repeat=3)
}


def insert_once(
    connection: Connection, job: NewJob, *, dispatched: bool, key_ttl: float = KEY_TTL
) -> JobRow | None:
    """Stores a job unless its idempotency key is taken, or it is there already; None when it is.

    Args:
        dispatched: the caller publishes a message right after the commit, if the row says that it was dispatched:
            a job that is due later is left to the dispatcher.
        key_ttl: seconds until its key can be used for another job.
    """
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
    }
    if job.idempotency_key is not None:
        values["key_ttl"] = key_ttl
    if job.terms is not None:
        values |= {
            "priority": job.terms.priority,
            "run_at": job.terms.run_at,
            "delay": job.terms.delay,
            "expires_at": job.terms.expires_at,
            "expires_in": job.terms.expires_in,
            "backoff": job.terms.backoff,
            "tags": list(job.terms.tags),
            "callback_url": job.terms.callback_url,
        }
    as_sent = kept_as_sent(job.payload)
    if as_sent is not None:
        values["as_sent"] = as_sent
    statement = _INSERT_ONCE[job.idempotency_key is not None, job.terms is not None, as_sent is not None]
    rows = statement.run(connection, values).rows
    return _new_row(job, *rows[0]) if rows else None


def _new_row(
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
        idempotency_key=job.idempotency_key,
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
    )


_BY_KEY = text(f"""
    SELECT taken.job_id, taken.fingerprint, {columns_of(FIELDS, "jobs")}
      FROM idempotency_keys AS taken LEFT JOIN jobs ON jobs.id = taken.job_id
     WHERE taken.key = :key AND taken.expires_at > now()""")


def find_by_key(connection: Connection, key: str) -> KeyOwner | None:
    """Who owns an idempotency key; None when it is free or has run out."""
    row = connection.execute(_BY_KEY, {"key": key}).first()
    if row is None:
        return None
    return KeyOwner(row[0], bytes(row[1]), JobRow(*row[2:]) if row[2] is not None else None)


def insert_or_find(
    connection: Connection, job: NewJob, *, dispatched: bool, key_ttl: float
) -> tuple[JobRow | None, KeyOwner | None]:
    """Stores a job, or finds the one that is in its way: its key's owner, or itself from a first try."""
    inserted = insert_once(connection, job, dispatched=dispatched, key_ttl=key_ttl)
    if inserted is not None:
        return inserted, None
    if job.idempotency_key is not None:
        return None, find_by_key(connection, job.idempotency_key)
    row = find(connection, job.id)
    return None, KeyOwner(job.id, job.fingerprint, row) if row is not None else None


_GIVEN = """given AS MATERIALIZED (
        SELECT * FROM unnest(CAST(:ids AS uuid[]), CAST(:tasks AS text[]), CAST(:payloads AS text[]),
                  CAST(:queues AS text[]), CAST(:max_retries AS int[]), CAST(:timeouts AS float8[]),
                  CAST(:keys AS text[]), CAST(:fingerprints AS text[]){more_arrays})
           AS given(id, task, payload, queue, max_retries, timeout, key, fingerprint{more_names}))"""
_TERM_ARRAYS = """,
                  CAST(:priorities AS int[]), CAST(:run_ats AS timestamptz[]), CAST(:delays AS float8[]),
                  CAST(:expiries AS timestamptz[]), CAST(:expires_in AS float8[]), CAST(:backoffs AS text[]),
                  CAST(:tags AS text[]), CAST(:callback_urls AS text[])"""
_AS_SENT_ARRAY = ", CAST(:as_sent AS text[])"
_TERM_NAMES = ", priority, run_at, delay, expires_at, expires_in, backoff, tags, callback_url"
_GIVEN_DUE = "greatest(run_at, now() + make_interval(secs => delay))"
_GIVEN_TERMS = f""",
           priority, {_GIVEN_DUE}, coalesce(expires_at, {_GIVEN_DUE} + make_interval(secs => expires_in)),
           CAST(backoff AS jsonb), ARRAY(SELECT jsonb_array_elements_text(CAST(tags AS jsonb))), callback_url"""


def _insert_many(*, keyed: bool, terms: bool, as_sent: bool) -> str:
    # Keys are locked in their order, so two batches with the same keys never wait for each other in a circle.
    keys = f""",
    mine AS (
        INSERT INTO idempotency_keys AS taken (key, fingerprint, job_id, expires_at)
        SELECT DISTINCT ON (key) key, decode(fingerprint, 'hex'), id, now() + make_interval(secs => :key_ttl)
          FROM given WHERE key IS NOT NULL
         ORDER BY key, id
        {_TAKE_KEY})"""
    given = _GIVEN.format(
        more_arrays=(_TERM_ARRAYS if terms else "") + (_AS_SENT_ARRAY if as_sent else ""),
        more_names=(_TERM_NAMES if terms else "") + (", as_sent" if as_sent else ""),
    )
    sent = ", CAST(as_sent AS json)" if as_sent else ""
    due = f" AND {_GIVEN_DUE} <= now()" if terms else ""
    return f"""
    WITH {given}{keys if keyed else ""}
    INSERT INTO jobs ({_COLUMNS}{_TERM_COLUMNS if terms else ""}{_AS_SENT_COLUMN if as_sent else ""})
    SELECT id, task, CAST(payload AS jsonb), queue, max_retries, timeout, key, decode(fingerprint, 'hex'),
           :request_id, :traceparent, CASE WHEN :dispatched{due} THEN now() END{_GIVEN_TERMS if terms else ""}{sent}
      FROM given
     {"WHERE key IS NULL OR id IN (SELECT job_id FROM mine)" if keyed else ""}
    ON CONFLICT (id) DO NOTHING
    RETURNING id, dispatched_at IS NOT NULL"""


_INSERT_MANY = {
    (keyed, terms, as_sent): text(_insert_many(keyed=keyed, terms=terms, as_sent=as_sent))
    for keyed, terms, as_sent in product((False, True), repeat=3)
}


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
    values = _plain_values(jobs) | {"dispatched": dispatched}
    keyed = any(job.idempotency_key is not None for job in jobs)
    if keyed:
        values["key_ttl"] = key_ttl
    with_terms = any(job.terms is not None for job in jobs)
    if with_terms:
        values |= _term_values([job.terms or PLAIN for job in jobs])
    as_sent = [kept_as_sent(job.payload) for job in jobs]
    if sent := any(as_sent):
        values["as_sent"] = text_array_of(as_sent)
    rows = connection.execute(_INSERT_MANY[keyed, with_terms, sent], values)
    return {row[0]: row[1] for row in rows}


def _plain_values(jobs: Sequence[NewJob]) -> dict[str, Any]:
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


def _term_values(terms: Sequence[Terms]) -> dict[str, list[Any]]:
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
    }


_BY_KEYS = text(
    "SELECT key, job_id, fingerprint FROM idempotency_keys"
    " WHERE key = ANY(CAST(:keys AS text[])) AND expires_at > now()"
)


def find_by_keys(connection: Connection, keys: Sequence[str]) -> dict[str, tuple[UUID, bytes]]:
    """The jobs that own these idempotency keys, with the fingerprints of their requests."""
    rows = connection.execute(_BY_KEYS, {"keys": list(keys)})
    return {row[0]: (row[1], bytes(row[2])) for row in rows}


_PRUNE_KEYS = text("""
    DELETE FROM idempotency_keys WHERE key IN (
        SELECT key FROM idempotency_keys WHERE expires_at <= now()
         ORDER BY expires_at LIMIT :limit FOR UPDATE SKIP LOCKED)""")


def prune_keys(connection: Connection, limit: int) -> int:
    """Deletes idempotency keys that have run out; returns how many."""
    return connection.execute(_PRUNE_KEYS, {"limit": limit}).rowcount
