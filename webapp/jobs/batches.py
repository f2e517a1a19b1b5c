"""The jobs of a batch: stored in one transaction, and what each is answered.

Functions take a connection and never commit. Unique keys are locked before idempotency keys, and each kind in its order, so that
two batches with the same keys never wait for each other in a circle.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from uuid import UUID

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from webapp.flow.reach import Reach
from webapp.infra.postgres.database_errors import is_lock_of
from webapp.jobs import insert, unique_keys
from webapp.jobs.errors import JobError, KeyRace, KeyReused, UniqueHeld, UniqueRace
from webapp.jobs.submission import NewJob, Placed
from webapp.jobs.unique import OnConflict


@dataclass(frozen=True, slots=True)
class Batch:
    """What became of the jobs of a batch.

    Args:
        created: the ids that were stored.
        told: those that workers are to be told of: stored now, or what they are from now on.
        held: by the id of a job that was not stored, the job that holds its unique key.
        replacing: by the id of a job that was not stored, the job that is what it asks for.
        owners: by idempotency key of the others, the job that owns it and the fingerprint of its request.
    """

    created: Collection[UUID] = frozenset()
    told: Sequence[NewJob] = ()
    held: dict[UUID, UUID] = field(default_factory=dict)
    replacing: dict[UUID, UUID] = field(default_factory=dict)
    owners: dict[str, tuple[UUID, bytes]] = field(default_factory=dict)

    def answer(self, job: NewJob) -> Placed | JobError:
        """What a job of this batch is answered. Pure."""
        if job.id in self.created:
            return Placed(job.id, created=True)
        if job.unique is not None and (holder := self.held.get(job.id)) is not None:
            if job.unique.on_conflict is OnConflict.REFUSE:
                return UniqueHeld(job.unique.key, holder)
            return Placed(holder, created=False, held=True)
        if (replaced := self.replacing.get(job.id)) is not None:
            return Placed(replaced, created=False, replaced=True)
        owner, known = self.owners.get(job.idempotency_key or "", (job.id, job.fingerprint))
        if known == job.fingerprint:
            return Placed(owner, created=False)
        return KeyReused(job.idempotency_key or "", owner)


@contextmanager
def named_races() -> Iterator[None]:
    """Around a batch's transaction: a key that another request holds for too long is named as what it is.

    Raises:
        KeyRace: it is an idempotency key.
        UniqueRace: it is a unique key.
    """
    try:
        yield
    except DBAPIError as error:
        if is_lock_of(error, insert.KEYS):
            raise KeyRace(unique_keys.ITS_KEYS) from error
        if is_lock_of(error, unique_keys.TABLE):
            raise UniqueRace(unique_keys.ITS_KEYS) from error
        raise


def insert_batch(
    connection: Connection, jobs: Sequence[NewJob], reach: Reach, *, dispatched: bool, key_ttl: float
) -> Batch:
    """Stores jobs as `insert.insert_many` does, except those whose unique key is held, or that replace the job that holds it.

    Args:
        dispatched: as there.
        key_ttl: as there.
        reach: of the caller; jobs beyond it are not replaced, and are named in the answer all the same.

    Raises:
        KeyRace: an idempotency key was taken or ran out meanwhile; what is stored so far must be taken back.
        UniqueRace: a job that is to be replaced has begun meanwhile; likewise.
    """
    insert.allow_time(connection)
    placing = unique_keys.judge(connection, jobs, reach)
    changed = unique_keys.replace_all(connection, jobs, placing, dispatched=dispatched, key_ttl=key_ttl)
    wanted = list(placing.stored.values())
    created = insert.insert_many(connection, wanted, dispatched=dispatched, key_ttl=key_ttl) if wanted else {}
    if not placing.takes <= created.keys():
        raise KeyRace(unique_keys.ITS_KEYS)
    unique_keys.take(connection, list(placing.takers.values()))
    taken = [job.idempotency_key for job in wanted if job.idempotency_key and job.id not in created]
    owners = insert.find_by_keys(connection, taken) if taken else {}
    if any(key not in owners for key in taken):
        raise KeyRace(unique_keys.ITS_KEYS)
    named = placing.stored | placing.changes
    told = created | {job_id: one.is_told for job_id, one in changed.items()}
    telling = [named[job_id] for job_id, is_told in told.items() if is_told]
    return Batch(created.keys(), telling, placing.held, placing.replacing, owners)
