"""Processes that fire schedules are killed at any moment, and PostgreSQL with them: each time fires once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from itertools import cycle
from pathlib import Path

import psycopg2
import pytest

from ops.stack.throwaway import Throwaway

pytestmark = pytest.mark.system

ROOT = Path(__file__).resolve().parents[2]
#: How many schedules there are, and how many seconds lie between two of their times.
SCHEDULES, EVERY = 200, 2
#: Makes them.
MAKE = f"""
from webapp import create_app
client = create_app(command_line=False).test_client()
for number in range({SCHEDULES}):
    spec = {{"every": {EVERY}, "job": {{"payload": {{"task": "noop"}}}}, "catch_up": "all", "catch_up_limit": 1000,
             "overlap": "allow_all"}}
    assert client.put(f"/schedules/s{{number}}", json=spec).status_code == 201
"""
#: Fires what is due, on and on; a server that is away is waited for.
FIRE = """
import time
from sqlalchemy.exc import SQLAlchemyError
from tasks.runtime import runtime
from webapp.jobs import handlers
from webapp.settings import current
handlers.load((), current().default_handler, ())
while True:
    try:
        time.sleep(min(runtime().firer.turn() or 0.01, 0.05))
    except SQLAlchemyError:
        time.sleep(0.05)
"""
#: Processes that fire at once, and how often one of them is killed.
FIRING, KILLS = 3, 16
#: Firings between two kills.
FIRED = 150


class Firing:
    """A database, and the processes that fire what is in it."""

    def __init__(self, servers, folder):
        self.url = servers.database_url.replace("+psycopg2", "")
        self.environment = {
            **os.environ,
            "DATABASE_URL": servers.database_url,
            "REDIS_URL": servers.redis_url,
            "DJPS_DATA_DIR": str(folder),
            "PROMETHEUS_MULTIPROC_DIR": str(folder / "metrics"),
            "RATE_LIMIT": "off",
            "HANDLERS": "",
        }
        self.processes = []

    def run(self, *words):
        subprocess.run(
            [sys.executable, *words],
            cwd=ROOT,
            env=self.environment,
            timeout=120,
            check=True,
            capture_output=True,
        )

    def start(self):
        self.processes.append(
            subprocess.Popen(
                [sys.executable, "-c", FIRE],
                cwd=ROOT,
                env=self.environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        )

    def kill(self):
        """Kills the process that has lived longest."""
        process = self.processes.pop(0)
        process.send_signal(signal.SIGKILL)
        process.wait()

    def rows(self, sql):
        """What a statement finds; None while PostgreSQL is away."""
        try:
            connection = psycopg2.connect(self.url, connect_timeout=2)
        except psycopg2.Error:
            return None
        try:
            with connection.cursor() as cursor:
                cursor.execute(sql)
                return cursor.fetchall() if cursor.description else []
        except psycopg2.Error:
            return None
        finally:
            connection.commit() if not connection.closed else None
            connection.close()

    def crash(self):
        """Kills a process of PostgreSQL that fires: the server ends all others, and starts again."""
        found = self.rows(
            "SELECT pid FROM pg_stat_activity WHERE application_name = 'djps-worker' ORDER BY state_change DESC LIMIT 1"
        )
        for (pid,) in found or []:
            os.kill(pid, signal.SIGKILL)


def test_each_time_fires_once_whatever_is_killed(tmp_path, eventually):
    with Throwaway() as servers:
        firing = Firing(servers, tmp_path)
        firing.run("-m", "flask", "--app", "wsgi", "db", "upgrade")
        firing.run("-c", MAKE)
        done = 0

        def enough():
            found = firing.rows("SELECT count(*) FROM firings")
            return found is not None and found[0][0] > done + FIRED and found[0][0]

        try:
            for _ in range(FIRING):
                firing.start()
            for number, crash in zip(range(KILLS), cycle((False, False, True)), strict=False):
                done = eventually(enough, 60)
                # Somewhere in the middle of what it does.
                time.sleep(0.01 * (number % 7))
                firing.kill()
                firing.start()
                if crash:
                    firing.crash()
            # One last round, and then no more.
            done = eventually(enough, 60)
        finally:
            while firing.processes:
                firing.kill()
        assert_each_fired_once(firing, eventually)


def assert_each_fired_once(firing, eventually):
    """Every time from the first to the last of a schedule has one firing with one job, and no job is without one."""
    rows = eventually(
        lambda: firing.rows(f"""
            SELECT s.name, count(f.at), count(DISTINCT f.at), count(DISTINCT f.job_id),
                   extract(epoch FROM max(f.at) - min(f.at))::int / {EVERY} + 1, s.fired, max(f.at) = s.last_at
              FROM schedules AS s JOIN firings AS f ON f.schedule_id = s.id
             WHERE f.outcome = 'fired' GROUP BY s.id""")  # noqa: S608 - a number of ours
    )
    assert len(rows) == SCHEDULES
    for name, fired, times, jobs, expected, counted, is_last in rows:
        assert fired == times == jobs == expected == counted, (name, fired, times, jobs, expected, counted)
        assert is_last, name
    ((jobs, fired),) = firing.rows("SELECT (SELECT count(*) FROM jobs), (SELECT count(*) FROM firings)")
    assert jobs == fired > KILLS * FIRED
