"""Workflows in tests: submits them, and has their jobs end as a test says."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from ending import complete, end_last
from factories import ERROR
from flask.testing import FlaskClient
from sqlalchemy import Engine, text

from tasks.runtime import runtime
from webapp.dead_letters.store import move_to_dead_letters
from webapp.jobs import store
from webapp.jobs.states import AttemptOutcome

NOOP = {"task": "noop"}


def step(*after: str, **more: Any) -> dict[str, Any]:
    """A step that does nothing, and what else is said of it."""
    return {"payload": NOOP, "after": list(after)} | more


def submit(client: FlaskClient, steps: dict[str, Any], **more: Any) -> str:
    """Submits a workflow; returns its id."""
    answer = client.post("/workflows", json={"steps": steps} | more)
    assert answer.status_code == 201, answer.text
    return answer.json["id"]


def get(client: FlaskClient, workflow_id: str) -> dict[str, Any]:
    answer = client.get(f"/workflows/{workflow_id}")
    assert answer.status_code == 200, answer.text
    return answer.json


def steps_of(client: FlaskClient, workflow_id: str) -> dict[str, dict[str, Any]]:
    """All steps by name."""
    items = client.get(f"/workflows/{workflow_id}/steps?limit=1000").json["items"]
    return {one["name"]: one for one in items}


def stand(client: FlaskClient, workflow_id: str) -> str:
    """How a workflow and its steps stand, in one line."""
    steps = steps_of(client, workflow_id).values()
    return " ".join(
        [get(client, workflow_id)["status"], *(f"{one['name']}:{one['status']}" for one in steps)]
    )


def job_of(client: FlaskClient, workflow_id: str, name: str) -> UUID:
    return UUID(steps_of(client, workflow_id)[name]["job_id"])


def claim(engine: Engine, job_id: UUID) -> store.Claim:
    with engine.begin() as connection:
        (found,) = store.claim(connection, [job_id], worker_id="host:1:boot/2", lease=60.0)
    return found


def done(
    client: FlaskClient, engine: Engine, workflow_id: str, *names: str, result: str | None = None
) -> None:
    """Has the jobs of steps complete, and what follows done."""
    for name in names:
        claimed = claim(engine, job_of(client, workflow_id, name))
        with engine.begin() as connection:
            assert complete(connection, claimed, result)
    runtime().advancer.turn()


def failed(client: FlaskClient, engine: Engine, workflow_id: str, *names: str) -> None:
    """Has the jobs of steps fail for good, and what follows done."""
    for name in names:
        claimed = claim(engine, job_of(client, workflow_id, name))
        with engine.begin() as connection:
            assert end_last(connection, claimed, AttemptOutcome.FAILED, ERROR)
            assert move_to_dead_letters(connection, claimed.id, claimed.attempt)
    runtime().advancer.turn()


def count(engine: Engine, what: str) -> int:
    with engine.connect() as connection:
        return connection.execute(text(what)).scalar_one()
