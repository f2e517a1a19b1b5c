"""Loses the answer to a submission after its commit, and gives it back as a broken connection once the job has ended."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import psycopg2
from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

from ops.chaos.clients import Line
from ops.chaos.stage import Broken, Stage
from webapp.infra.postgres import deadlines
from webapp.jobs import insert, store

#: Submissions whose answer is lost.
LOST = 10
#: What their X-Request-ID begins with.
MARK = "lost-answer"
#: Longest until such a job has ended, and what is left of the request's time then, seconds.
ENDS_WITHIN, LEFT = 10.0, 2.0
#: Longest a client waits for the answer, seconds.
PATIENCE = 20.0
#: Pause between two looks at the job, seconds.
GLANCE = 0.01

_STORED = "SELECT status, (SELECT count(*) FROM effects WHERE job_id = jobs.id) FROM jobs WHERE id = %s"


def lose_answers(stage: Stage) -> None:
    """Submits jobs without a key, and loses the answers; each must be there once, have run once, and be told as it is.

    Raises:
        Broken: one is there twice, or was answered otherwise.
    """
    with stage.fault(f"the answers to {LOST} submissions are lost until their jobs have ended"):
        for number in range(LOST):
            _lose_one(stage, f"{MARK}-{stage.prefix}-{number}")


def _lose_one(stage: Stage, request_id: str) -> None:
    (stage.system.folder / request_id).touch()
    # One that is due later has no message of its own, so it is run although its submission was not heard.
    body = {"payload": {"task": "chaos.effect", "seq": 0}, "delay": 0.05}
    line = Line(stage.system.api_port, timeout=PATIENCE)
    status, _, answer = line.ask("POST", "/jobs", json.dumps(body).encode(), {"X-Request-ID": request_id})
    line.close()
    if status != 201:  # noqa: PLR2004
        raise Broken(f"a submission whose answer was lost was answered {status}: {answer[:200]!r}")
    job = json.loads(answer)
    found = stage.system.rows(_STORED, job["id"])
    if len(found) != 1:
        raise Broken(f"a job whose answer was lost is stored {len(found)} times: {found}")
    if (job["status"], found) != ("completed", [("completed", 1)]):
        raise Broken(f"a job whose answer was lost was told as {job['status']}, and is {found}")


def install() -> None:
    """Puts the place into this process: what stores a job raises, once, where the harness has marked its request."""
    real = insert.insert_or_find

    def insert_or_find(connection: Connection, job: Any, **given: Any) -> Any:
        stored = real(connection, job, **given)
        if (job.request_id or "").startswith(MARK):
            _lose_if_asked(connection, job)
        return stored

    insert.insert_or_find = insert_or_find


def _lose_if_asked(connection: Connection, job: Any) -> None:
    try:
        (Path(os.environ["CHAOS_FOLDER"]) / job.request_id).unlink()
    except FileNotFoundError:
        return
    end = time.monotonic() + ENDS_WITHIN
    deadlines.bound(ENDS_WITHIN)
    while store.find_ended(connection, job.id) is None and time.monotonic() < end:
        time.sleep(GLANCE)
    deadlines.bound(LEFT)
    broken = psycopg2.OperationalError("the connection broke before the answer came")
    connection.invalidate(broken)
    raise OperationalError("INSERT", {}, broken, connection_invalidated=True)
