"""Batches for tests: made over HTTP, their members ended by the statements that end them, counted by the sweep."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any
from uuid import UUID

from ending import complete, end_last
from factories import ERROR, LEASE, WORKER, row_of
from flask.testing import FlaskClient
from sqlalchemy import Engine, text

from tasks.runtime import runtime
from tasks.sweeps import count_ends
from webapp.dead_letters.store import move_to_dead_letters
from webapp.infra.postgres.engine import in_transaction
from webapp.jobs import store
from webapp.jobs.model import Claim
from webapp.jobs.states import AttemptOutcome

#: A member's job.
JOB = {"payload": {"task": "noop"}}
#: The events of a batch that has all of them.
EVENTS = {
    f"on_{name}": {"payload": {"task": "noop", "is": name}} for name in ("complete", "success", "failure")
}
#: Where a batch is that there is not.
NONE = "01a20bef-39a1-7c11-9d02-6f4be2a3c7d5"


def made(
    client: FlaskClient, jobs: int = 0, headers: dict[str, str] | None = None, **fields: Any
) -> dict[str, Any]:
    """Makes a batch with so many jobs."""
    body = fields | ({"jobs": [JOB] * jobs} if jobs else {})
    answer = client.post("/batches", json=body, headers=headers)
    assert answer.status_code == 201, answer.text
    return dict(answer.json)


def ids_of(answer: dict[str, Any]) -> list[str]:
    """The jobs that an answer names: of a batch that was made with them, or of a part."""
    items = (answer.get("jobs") or answer)["items"]
    return [one["id"] for one in items if "id" in one]


def added(client: FlaskClient, batch: str, part: str, jobs: int = 1, **more: Any) -> dict[str, Any]:
    """Adds so many jobs."""
    answer = client.post(f"/batches/{batch}/jobs", json={"part": part, "jobs": [JOB] * jobs, **more})
    assert answer.status_code == 200, answer.text
    return dict(answer.json)


def shown(client: FlaskClient, batch: str) -> dict[str, Any]:
    """A batch."""
    answer = client.get(f"/batches/{batch}")
    assert answer.status_code == 200, answer.text
    return dict(answer.json)


def counts(client: FlaskClient, batch: str) -> tuple[int, ...]:
    """What its members have come to: total, completed, failed, cancelled, open."""
    found = shown(client, batch)
    return tuple(found[name] for name in ("total", "completed", "failed", "cancelled", "open"))


def begun(engine: Engine, job_id: str) -> Claim:
    """Has a member run."""
    claim = partial(store.claim, ids=[UUID(job_id)], worker_id=WORKER, lease=LEASE)
    (found,) = in_transaction(engine, claim)
    return found


def done(engine: Engine, ids: Iterable[str]) -> None:
    """Has members complete."""
    for one in ids:
        claim = begun(engine, one)
        with engine.begin() as connection:
            assert complete(connection, claim, None)


def dead(engine: Engine, ids: Iterable[str]) -> None:
    """Has members fail for good."""
    for one in ids:
        claim = begun(engine, one)
        with engine.begin() as connection:
            assert end_last(connection, claim, AttemptOutcome.FAILED, ERROR)
            assert move_to_dead_letters(connection, claim.id, claim.attempt)


def count() -> int:
    """Counts what was noted, as the sweep does, and what follows."""
    return count_ends.run_count(runtime())


def told(engine: Engine) -> list[tuple[str, dict[str, Any]]]:
    """The jobs that were made to tell of batches, in order: what each is about, and what it says of its batch."""
    statement = text("SELECT payload FROM jobs WHERE payload ? 'batch' ORDER BY id")
    with engine.connect() as connection:
        return [(one["is"], one["batch"]) for one in connection.execute(statement).scalars()]


def status_of(engine: Engine, job_id: str) -> str:
    """How a job stands."""
    return row_of(engine, job_id).status
