"""Last night's dump and an empty Redis: what was not final goes on, what was final stays, nothing is lost.

The record of acts is as it was sealed, and goes on being sealed on a server that numbers transactions from a smaller number on.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import create_engine
from sqlalchemy.engine import make_url
from sqlalchemy.pool import NullPool

from ops.stack import postgres
from ops.stack.throwaway import Throwaway
from webapp.audit.sealing import seal_next
from webapp.audit.verifying import verify

pytestmark = pytest.mark.system

ROOT = Path(__file__).resolve().parents[2]
#: How long ago the dump was made, as far as its rows can tell; an idempotency key lives four hours longer.
AGE = "20 hours"
#: Every state a job can be in, and how it comes to its end after the restore.
UNFINISHED = ("running", "queued", "retrying", "delayed")
#: Rows of final jobs, with all that a restore could change.
FINAL = """
    SELECT to_jsonb(j), (SELECT jsonb_agg(to_jsonb(a) ORDER BY a.attempt) FROM attempts a WHERE a.job_id = j.id),
           (SELECT jsonb_agg(to_jsonb(d) ORDER BY d.id) FROM dead_letters d WHERE d.job_id = j.id)
      FROM jobs j WHERE status IN ('completed', 'failed', 'cancelled') AND id = ANY(%s::uuid[]) ORDER BY id"""


def program(name, *words):
    """Runs one of PostgreSQL's own programs; its complaint is the failure's message."""
    done = subprocess.run(
        [str(postgres.binary(name)), *words], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


def libpq(url):
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


def make_older(fleet):
    """Shifts every moment of the database back, so that the dump is as old as one of last night.

    The record of acts and its seals keep their moments: they refuse every change.
    """
    columns = fleet.rows(
        "SELECT relname, attname FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid"
        " WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition"
        " AND attnum > 0 AND atttypid = 'timestamptz'::regtype AND relname NOT IN ('audit_events', 'audit_seals')"
    )
    assert len(columns) > 15
    for table in {table for table, _ in columns}:
        shifts = ", ".join(f"{name} = {name} - interval '{AGE}'" for of, name in columns if of == table)
        fleet.rows(f"UPDATE {table} SET {shifts}")  # noqa: S608 - the names are the catalog's own


def jobs_of_every_state(fleet):
    """Posts them and waits until each is where it should be when the dump is made."""
    jobs = {
        "completed": fleet.post("noop", key="order-1", order=1),
        "failed": fleet.post("no-use"),
        "cancelled": fleet.submit({"payload": {"task": "noop"}, "delay": 3600}),
        "retrying": fleet.submit({"payload": {"task": "fail"}, "max_retries": 2}),
        "delayed": fleet.submit(
            {"payload": {"task": "noop", "order": 2}, "delay": 3600, "idempotency_key": "order-2"}
        ),
    }
    fleet.http.post(f"{fleet.url}/jobs/{jobs['cancelled']['id']}/cancel", json={}, timeout=10)
    for name in ("completed", "failed", "cancelled"):
        assert fleet.wait_for(jobs[name])["status"] == name
    # Both children are busy with these, so the next one stays queued.
    jobs["running"] = fleet.post("sleep", seconds=3, key="order-3")
    jobs["running too"] = fleet.post("sleep", seconds=3)
    fleet.wait_for(jobs["running"], "processing")
    fleet.wait_for(jobs["running too"], "processing")
    jobs["queued"] = fleet.post("noop", key="order-4", order=4)
    return jobs


class Record:
    """The record of acts of a fleet.

    Args:
        fleet: it.
        eventually: waits until something is so.
    """

    def __init__(self, fleet, eventually):
        self._fleet = fleet
        self._eventually = eventually
        self._engine = create_engine(fleet.database_url, poolclass=NullPool)

    def grow(self):
        """Acts, seals all that is on record, unless the sweep comes first, and acts again; gives the newest digest."""
        self._cancel_one()

        def none_waits():
            while seal_next(self._engine, (), 1_000):
                pass
            return self.found().unsealed == 0

        self._eventually(none_waits)
        newest = self.found().newest
        self._cancel_one()
        return newest

    def found(self, digest=None):
        return verify(self._engine, (), 400, digest=digest and bytes.fromhex(digest))

    def acts(self):
        ((number,),) = self._fleet.rows("SELECT count(*) FROM audit_events")
        return number

    def must_be_whole(self, digest):
        """No seal is broken, the one of this digest is there, and each act is sealed or waits for it."""
        found = self.found(digest)
        assert (found.broken, found.events + found.unsealed) == (None, self.acts())

    def must_go_on(self, digest, later):
        """What comes is sealed as well; what was sealed later than the dump is missing."""
        before = self.found()
        self.grow()
        self.must_be_whole(digest)
        assert self.found().events > before.events
        assert self.found(later).broken is not None
        command = [sys.executable, "-m", "flask", "--app", "wsgi", "audit", "verify", "--digest", digest]
        subprocess.run(
            command, env=self._fleet.environment, cwd=ROOT, check=True, capture_output=True, timeout=60
        )

    def must_be_numbered_anew(self):
        """Else the restore would show nothing of that."""
        ((is_behind,),) = self._fleet.rows(
            "SELECT pg_snapshot_xmax(pg_current_snapshot()) < (SELECT max(up_to_xid) FROM audit_seals)"
        )
        assert is_behind

    def _cancel_one(self):
        job = self._fleet.submit({"payload": {"task": "noop"}, "delay": 3600})
        path = f"{self._fleet.url}/jobs/{job['id']}/cancel"
        assert self._fleet.http.post(path, json={}, timeout=10).status_code == 200


def test_a_dump_of_last_night_and_an_empty_redis_lose_nothing_that_the_dump_has(
    another_fleet, database, tmp_path, eventually
):
    dump = tmp_path / "djps.dump"
    before = another_fleet("before", database)
    before.up()
    jobs = jobs_of_every_state(before)
    record = Record(before, eventually)
    sealed = record.grow()
    program("pg_dump", "--format=custom", f"--file={dump}", libpq(database))
    # The world goes on for a while after the dump, and then it ends.
    assert before.wait_for(jobs["running"])["attempt"] == 1
    later = before.post("noop", key="order-5", order=5)
    before.wait_for(later)
    sealed_later = record.grow()
    for name in ("beat", "worker", "maintenance", "api", "redis"):
        before.stop(name, signal.SIGKILL)

    # What is restored into is new: data folder, server, and a Redis with nothing in it.
    with Throwaway() as found:
        program("pg_restore", "--exit-on-error", "--single-transaction", "--no-owner",
                f"--dbname={libpq(found.database_url)}", str(dump))  # fmt: skip
        after = another_fleet("after", found.database_url)
        make_older(after)
        record = Record(after, eventually)
        record.must_be_numbered_anew()
        record.must_be_whole(sealed)
        ids = [job["id"] for job in jobs.values()]
        final = after.rows(FINAL, ids)
        assert len(final) == 3
        was = dict(after.rows("SELECT id::text, row(status, attempt)::text FROM jobs"))
        assert was[jobs["running"]["id"]] == was[jobs["running too"]["id"]] == "(processing,1)"
        assert was[jobs["queued"]["id"]] == was[jobs["delayed"]["id"]] == "(queued,0)"
        attempts_before = dict(after.rows("SELECT id::text, attempt FROM jobs"))
        after.up()

        # Every job of the dump that was not final becomes final, and its attempts count on.
        ends = {name: after.wait_for(jobs[name]) for name in (*UNFINISHED, "running too")}
        assert {name: end["status"] for name, end in ends.items()} == {
            "running": "completed", "running too": "completed", "queued": "completed",
            "delayed": "completed", "retrying": "failed",
        }  # fmt: skip
        assert after.attempts(jobs["running"]) == [(1, "lost"), (2, "completed")]
        assert ends["retrying"]["attempt"] == 3 > attempts_before[jobs["retrying"]["id"]] >= 1
        assert after.attempts(jobs["retrying"]) == [(1, "failed"), (2, "failed"), (3, "failed")]
        assert after.unfinished() == 0
        # What was final has not been touched: row, attempts, letter.
        assert [
            row for row in after.rows(FINAL, ids) if row[0]["id"] in {one[0]["id"] for one in final}
        ] == final
        # Keys hold, for jobs of every kind; another request under one is still refused.
        assert after.post("noop", key="order-1", order=1)["id"] == jobs["completed"]["id"]
        assert after.post("noop", key="order-4", order=4)["id"] == jobs["queued"]["id"]
        assert after.post("sleep", key="order-3", seconds=3)["id"] == jobs["running"]["id"]
        refused = {"payload": {"task": "noop", "order": 9}, "idempotency_key": "order-4"}
        assert after.http.post(f"{after.url}/jobs", json=refused, timeout=10).status_code == 422
        # What was accepted after the dump is gone; a client that sends it again under its key gets it done.
        assert after.http.get(f"{after.url}/jobs/{later['id']}", timeout=10).status_code == 404
        assert after.wait_for(after.post("noop", key="order-5", order=5))["status"] == "completed"
        record.must_go_on(sealed, sealed_later)
        after.stop_all()
