"""The store's statements about unique keys: take one with the job that is stored, see who holds it, delete those that count no more.

Like `webapp.jobs.store`, of which this is a part: functions take a connection and never commit. All that is done for a submission
is one transaction: a key's row is locked, then its holder judged, then the job stored.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import Connection, text

from webapp.flow.reach import EVERYTHING, Reach
from webapp.infra.postgres.literals import array_of, text_array_of
from webapp.infra.postgres.sql_files import read_sql
from webapp.jobs import insert
from webapp.jobs.errors import KeyRace, UniqueHeld, UniqueRace
from webapp.jobs.replacements import Changed, Replaced, hold, replace_jobs
from webapp.jobs.store import find
from webapp.jobs.submission import NewJob
from webapp.jobs.unique import Holder, OnConflict, Placing, Unique, counts, place
from webapp.jobs.unseen import unseen

#: The table of unique keys.
TABLE = "unique_keys"
#: What an error names in place of the one key that was in the way.
ITS_KEYS = "of this batch"

_LOCK, _HOLDERS, _TAKE, _NEXT, _PRUNE = (
    text(read_sql(__file__, "unique", name)) for name in ("lock", "holders", "take", "next", "prune")
)


def insert_unique(
    connection: Connection,
    job: NewJob,
    asked: Unique,
    reach: Reach,
    *,
    dispatched: bool,
    key_ttl: float,
    again: bool,
) -> insert.Stored | Replaced:
    """Stores a job unless its unique key is held, or has the job that holds it be what this one asks for; else as `insert.insert_or_find`.

    Args:
        dispatched: as there.
        key_ttl: as there.
        again: an earlier try of this may have stored it.
        reach: of the caller; a job beyond it is not replaced.

    Raises:
        UniqueHeld: another job holds its key, reached or not.
        KeyRace: it replaces another job, and another request with its idempotency key was quicker.
    """
    placing = judge(connection, [job], reach)
    holder = placing.replacing.get(job.id) or placing.held.get(job.id)
    if holder == job.id:
        return None, insert.KeyOwner(job.id, job.fingerprint, find(connection, job.id, EVERYTHING))
    if job.id in placing.held:
        raise UniqueHeld(asked.key, placing.held[job.id])
    if holder is not None:
        changed = replace_all(connection, [job], placing, dispatched=dispatched, key_ttl=key_ttl)
        return changed[holder].replaced(placing.changes[holder])
    store = insert.insert_again_or_find if again else insert.insert_or_find
    stored = store(connection, job, dispatched=dispatched, key_ttl=key_ttl)
    if stored[0] is not None:
        take(connection, [job])
    return stored


def replace_all(
    connection: Connection, jobs: Sequence[NewJob], placing: Placing, *, dispatched: bool, key_ttl: float
) -> dict[UUID, Changed]:
    """Replaces what a judgement says, and has those jobs own the idempotency keys of these requests; answers as `replace_jobs`.

    Args:
        jobs: those that were judged.
        dispatched, key_ttl: as in `insert_unique`.

    Raises:
        KeyRace: another request with one of the idempotency keys was quicker.
        UniqueRace: a job that was held has begun all the same; nothing of this transaction may stay.
    """
    changed = replace_jobs(connection, placing.changes, dispatched=dispatched)
    if changed.keys() != placing.changes.keys():
        raise UniqueRace(ITS_KEYS)
    replacing = [(job, placing.replacing[job.id]) for job in jobs if job.id in placing.replacing]
    if not insert.own_keys(connection, replacing, key_ttl=key_ttl):
        raise KeyRace(jobs[0].idempotency_key or "" if len(jobs) == 1 else ITS_KEYS)
    return changed


def look(connection: Connection, asked: Unique) -> None:
    """Judges a key's holder without a lock: one that counts now is in the way, one that does not may be once the lock is had.

    Raises:
        UniqueHeld: it counts.
    """
    holder = _holders(connection, [asked.key]).get(asked.key)
    if holder is not None and counts(holder, asked):
        raise UniqueHeld(asked.key, holder.job_id)


def held(connection: Connection, jobs: Sequence[NewJob]) -> set[UUID]:
    """The ids of those jobs whose unique key another one holds now; locks nothing."""
    asking = [(job.id, job.unique) for job in jobs if job.unique is not None]
    if not asking:
        return set()
    holders = _holders(connection, (asked.key for _, asked in asking))
    return {
        job_id
        for job_id, asked in asking
        if (holder := holders.get(asked.key)) is not None and counts(holder, asked)
    }


def _holders(connection: Connection, keys: Iterable[str]) -> dict[str, Holder]:
    rows = connection.execute(_HOLDERS, {"keys": text_array_of(keys)})
    return {row[0]: Holder(*row[1:]) for row in rows}


def judge(connection: Connection, jobs: Sequence[NewJob], reach: Reach) -> Placing:
    """Which of these jobs may be stored; until this transaction ends no one else takes their unique keys.

    Args:
        reach: of the caller; jobs beyond it are not replaced.
    """
    asking = {job.id: job.unique.key for job in jobs if job.unique is not None}
    if not asking:
        return Placing(stored={job.id: job for job in jobs})
    connection.execute(_LOCK, {"keys": text_array_of(asking.values()), "ids": array_of(asking)})
    replacing = [
        job.unique.key for job in jobs if job.unique and job.unique.on_conflict is OnConflict.REPLACE
    ]
    if replacing:
        hold(connection, replacing)
    used = [job.idempotency_key for job in jobs if job.idempotency_key is not None]
    owned = insert.find_by_keys(connection, used) if used else {}
    return place(jobs, _holders_within(connection, asking.values(), replacing, reach), owned)


def _holders_within(
    connection: Connection, keys: Iterable[str], replacing: Iterable[str], reach: Reach
) -> dict[str, Holder]:
    """The jobs that hold these keys, and of those that are to be replaced whether they are reached; for others nothing is asked."""
    found = _holders(connection, keys)
    asked = {found[key].job_id for key in replacing if key in found}
    elsewhere = unseen(connection, asked, reach).elsewhere
    return {key: replace(one, is_reached=one.job_id not in elsewhere) for key, one in found.items()}


def take(connection: Connection, jobs: Sequence[NewJob]) -> None:
    """Has jobs hold their unique keys, from now on and for the time that they ask."""
    asking = [(job.id, job.unique) for job in jobs if job.unique is not None]
    if not asking:
        return
    connection.execute(
        _TAKE,
        {
            "keys": text_array_of(asked.key for _, asked in asking),
            "ids": array_of(job_id for job_id, _ in asking),
            "seconds": array_of(asked.seconds or 0.0 for _, asked in asking),
        },
    )


class Pruned(NamedTuple):
    """One step of pruning.

    Args:
        last: the last key that was looked at; None where there was none.
        looked: keys that were looked at.
        deleted: those of them that counted no more.
    """

    last: str | None
    looked: int
    deleted: int


def prune(connection: Connection, after: str, limit: int) -> Pruned:
    """Deletes unique keys that count no more.

    Args:
        after: keys behind this one are looked at.
        limit: so many at most.
    """
    keys = list(connection.execute(_NEXT, {"after": after, "limit": limit}).scalars())
    if not keys:
        return Pruned(None, 0, 0)
    return Pruned(keys[-1], len(keys), connection.execute(_PRUNE, {"keys": text_array_of(keys)}).rowcount)
