"""Submissions with a unique key: each stored by itself, behind the lock of its key. Commits."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from itertools import count
from typing import Any
from uuid import UUID

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from webapp.flow.reach import Reach
from webapp.infra.postgres.database_errors import is_lock_of
from webapp.infra.postgres.engine import in_one_trip, in_transaction
from webapp.jobs import insert, unique_keys
from webapp.jobs.errors import (
    JobGone,
    JobNotFound,
    KeyRace,
    UniqueHeld,
    UniqueOfPruned,
    UniqueRace,
)
from webapp.jobs.model import JobRow
from webapp.jobs.replacements import Replaced
from webapp.jobs.submission import Accepted, NewJob
from webapp.jobs.unique import OnConflict, Unique


class UniqueSubmissions:
    """Takes jobs in that are to be the only ones of their kind.

    Args:
        engine: the database.
        get: one job; raises `JobNotFound` or `JobGone`.
        slot: held while a submission works on the database.
        key_ttl: seconds an idempotency key lives.
    """

    def __init__(
        self,
        engine: Engine,
        get: Callable[[UUID, Reach], JobRow],
        slot: Callable[[], AbstractContextManager[None]],
        key_ttl: float,
    ) -> None:
        self._engine = engine
        self._get = get
        self._slot = slot
        self._key_ttl = key_ttl

    def store(self, job: NewJob, asked: Unique, reach: Reach, *, dispatched: bool) -> Accepted:
        """Stores a job unless its unique key is held; else finds the job that holds it, or has that be what this one asks for.

        Args:
            dispatched: the caller publishes a message right after the commit, if the answer says so.

        Raises:
            UniqueHeld: another job holds its unique key, and it asks to be refused then.
            UniqueOfPruned: the key is held for a job that is gone, or is not reached.
            UniqueRace, KeyRace: another request with one of its keys is not through yet.
            KeyReused, KeyOfPruned: as for every submission.
        """
        tries = count()
        given: Any = {"dispatched": dispatched, "key_ttl": self._key_ttl}
        try:
            with self._slot():
                if job.idempotency_key is None and asked.on_conflict is not OnConflict.REPLACE:
                    # Many submissions of one key come while it is held: these neither lock its row nor wait for each other.
                    in_one_trip(self._engine, lambda connection: unique_keys.look(connection, asked))
                stored = in_transaction(
                    self._engine,
                    lambda connection: unique_keys.insert_unique(
                        connection, job, asked, reach, again=next(tries) > 0, **given
                    ),
                )
        except UniqueHeld as held:
            if asked.on_conflict is OnConflict.REFUSE:
                raise
            return self._answer_held(held, reach)
        except DBAPIError as error:
            if is_lock_of(error, unique_keys.TABLE):
                raise UniqueRace(asked.key) from error
            if is_lock_of(error, insert.KEYS):
                raise KeyRace(job.idempotency_key or "") from error
            raise
        if isinstance(stored, Replaced):
            return Accepted(stored.job, created=False, replaced=True, is_told=stored.is_told)
        return insert.accepted(job, *stored)

    def _answer_held(self, held: UniqueHeld, reach: Reach) -> Accepted:
        try:
            with self._slot():
                return Accepted(self._get(held.job_id, reach), created=False, held=True)
        except (JobNotFound, JobGone):
            raise UniqueOfPruned(held.key, held.job_id) from None
