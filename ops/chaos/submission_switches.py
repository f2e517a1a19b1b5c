"""Switches of submissions: mutants of what is stored and answered when jobs come in."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Any


def _answer_first() -> None:
    """The client is answered, and the job is stored a moment later."""
    from webapp.jobs.service import Jobs

    real = Jobs._store

    def later(self: Any, job: Any, *, dispatched: bool) -> Any:
        def store() -> None:
            time.sleep(0.3)
            real(self, job, dispatched=dispatched)

        threading.Thread(target=store, daemon=True).start()
        return _row_of(job), True

    Jobs._store = later


def _row_of(job: Any) -> Any:
    from datetime import UTC, datetime

    from webapp.jobs.model import JobRow

    now = datetime.now(UTC)
    known = {"id": job.id, "task": job.task, "payload": {}, "queue": job.queue, "status": "queued"}
    known |= {"timeout": job.timeout, "run_at": now, "created_at": now, "updated_at": now}
    known |= {"idempotency_key": job.idempotency_key, "max_retries": job.max_retries}
    known |= {"priority": 5, "attempt": 0, "retry_count": 0, "tags": []}
    return JobRow(**{name: known.get(name) for name in JobRow.__slots__})


def _group_told_early() -> None:
    """Those who are stored with another one are answered when it begins."""
    from webapp.jobs.groups import Groups

    real = Groups._lead

    def lead(self: Any, group: Any) -> None:
        for one in group[1:]:
            one.answer = _row_of(one.candidate.job), None
            one.word.release()
        time.sleep(0.3)
        for one in group[1:]:
            # The real one releases it anew.
            one.word.acquire(blocking=False)
        real(self, group)

    Groups._lead = lead


def _group_trusted() -> None:
    """Whatever became of a group, its members are told that they are stored."""
    from webapp.jobs.groups import Groups

    real = Groups.add
    Groups.add = lambda self, one: real(self, one) or (_row_of(one.job), None)


def _stored_again() -> None:
    """A submission whose answer was lost is made again without a look for the job among those that have ended."""
    from webapp.jobs import insert

    insert.insert_again_or_find = insert.insert_or_find


def _every_lock_a_race() -> None:
    """A submission that waited for any lock in vain is told that another one holds its key."""
    from webapp.infra.postgres import database_errors
    from webapp.jobs import service

    service.is_lock_of = lambda error, _table: (
        database_errors.trouble_of(error) is database_errors.Trouble.BUSY
    )


def _nameless() -> None:
    """A child has another idempotency key each time that it is submitted."""
    from webapp.jobs import children

    children.key_of = lambda parent, name: f"child:{parent}:{name}:{os.urandom(8).hex()}"


MUTANTS: dict[str, Callable[[], None]] = {
    "answer-first": _answer_first,
    "group-told-early": _group_told_early,
    "group-trusted": _group_trusted,
    "stored-again": _stored_again,
    "every-lock-a-race": _every_lock_a_race,
    "nameless": _nameless,
}
