"""Acts that are killed in the middle: what was done is on record, what is on record was done, and the seals fit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from itertools import cycle
from pathlib import Path

import psycopg2
import pytest
from sqlalchemy import create_engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from ops.stack.throwaway import Throwaway
from webapp.audit.sealing import seal_next
from webapp.audit.verifying import verify

pytestmark = pytest.mark.system

ROOT = Path(__file__).resolve().parents[2]
#: Submits jobs that wait for a day, and prints their ids.
SUBMIT = """
from webapp import create_app
client = create_app(command_line=False).test_client()
jobs = [{"payload": {"task": "noop"}, "delay": 86400}] * 50
print(*[one["id"] for one in client.post("/jobs/batch", json={"jobs": jobs}).json["items"]])
"""
#: Cancels and retries jobs at random, on and on.
ACT = """
import random, sys
from webapp import create_app
client = create_app(command_line=False).test_client()
while True:
    client.post(f"/jobs/{random.choice(sys.argv[1:])}/{random.choice(('cancel', 'retry'))}")
"""
#: Processes that act at once, and how often one of them is killed.
ACTORS, KILLS = 3, 8
#: Acts between two kills.
ACTS = 60


class Acts:
    """A database, and the processes that act in it.

    Args:
        servers: where it is.
        folder: where processes keep their counters.
    """

    def __init__(self, servers, folder):
        self.url = servers.database_url.replace("+psycopg2", "")
        self.environment = {
            **os.environ,
            "DATABASE_URL": servers.database_url,
            "REDIS_URL": servers.redis_url,
            "DJPS_DATA_DIR": str(folder),
            "PROMETHEUS_MULTIPROC_DIR": str(folder / "metrics"),
            "RATE_LIMIT": "off",
        }
        self.actors = []

    def run(self, *words):
        """Runs a Python program to its end; gives what it printed."""
        return subprocess.run(
            [sys.executable, *words],
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        ).stdout

    def start(self, ids):
        self.actors.append(
            subprocess.Popen(
                [sys.executable, "-c", ACT, *ids],
                cwd=ROOT,
                env=self.environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        )

    def kill(self):
        """Kills the actor that has lived longest."""
        actor = self.actors.pop(0)
        actor.send_signal(signal.SIGKILL)
        actor.wait()

    def rows(self, sql):
        """What a statement finds; None while PostgreSQL is away."""
        try:
            connection = psycopg2.connect(self.url, connect_timeout=2)
        except psycopg2.Error:
            return None
        try:
            with connection.cursor() as cursor:
                cursor.execute(sql)
                return cursor.fetchall()
        except psycopg2.Error:
            return None
        finally:
            connection.close()

    def crash(self):
        """Kills one of PostgreSQL's processes in the middle of what it does: the server ends all others, and starts again."""
        of_actors = "SELECT pid FROM pg_stat_activity WHERE application_name = 'djps-api' ORDER BY state_change DESC LIMIT 1"
        for (pid,) in self.rows(of_actors) or []:
            os.kill(pid, signal.SIGKILL)


def test_what_was_done_is_on_record_and_what_is_on_record_was_done(tmp_path, eventually):
    with Throwaway() as servers:
        acts = Acts(servers, tmp_path)
        engine = create_engine(servers.database_url, poolclass=NullPool)
        acts.run("-m", "flask", "--app", "wsgi", "db", "upgrade")
        ids = acts.run("-c", SUBMIT).split()
        assert len(ids) == 50
        done = 0

        def enough():
            found = acts.rows("SELECT count(*) FROM audit_events")
            return found is not None and found[0][0] > done + ACTS and found[0][0]

        try:
            for _ in range(ACTORS):
                acts.start(ids)
            for _, crash in zip(range(KILLS), cycle((False, True)), strict=False):
                done = eventually(enough, 60)
                seal_what_there_is(engine)
                acts.kill()
                acts.start(ids)
                if crash:
                    acts.crash()
        finally:
            while acts.actors:
                acts.kill()
        events = eventually(lambda: acts.rows("SELECT target_id, event FROM audit_events ORDER BY id"))
        jobs = eventually(lambda: acts.rows("SELECT CAST(id AS text), status FROM jobs"))
        assert len(events) > KILLS * ACTS
        for job_id, status in jobs:
            of_job = [event for target, event in events if target == job_id]
            assert of_job == [
                event for _, event in zip(of_job, cycle(("job.cancel", "job.retry")), strict=False)
            ]
            assert status == ("cancelled" if of_job[-1:] == ["job.cancel"] else "queued")
        assert {target for target, _ in events} <= set(ids)
        eventually(lambda: seal_what_there_is(engine) or verify(engine, (), 400).unsealed == 0)
        found = verify(engine, (), 400)
        assert (found.broken, found.events) == (None, len(events))


def seal_what_there_is(engine):
    """Seals a batch, unless PostgreSQL is away."""
    try:
        seal_next(engine, (), 20)
    except SQLAlchemyError:
        return
