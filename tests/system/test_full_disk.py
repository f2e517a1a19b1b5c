"""The disk under the data folder of `ops up` fills up; when there is room again, everything heals by itself."""

from __future__ import annotations

import time
from pathlib import Path

import psycopg2
import pytest
from full_disk import fill, small_disk
from stacks import completes, ops, status, supervisor_of, surroundings

from ops.stack import postgres

pytestmark = pytest.mark.system

#: Seconds the disk stays full: what ends of it is started again and again meanwhile.
FULL_FOR = 10
#: Everything works again within this, seconds.
HEALED_WITHIN = 60


def needs_room(port: int) -> None:
    """Has PostgreSQL begin a new file of its log, for which there is no room."""
    try:
        connection = postgres.connect(port)
        connection.autocommit = True
        connection.cursor().execute("SELECT pg_switch_wal()")
        connection.close()
    except psycopg2.Error:
        return


def test_everything_heals_within_a_minute_of_the_spaces_return(eventually):
    with surroundings() as environment, small_disk(Path(environment["DJPS_DATA_DIR"]), "256m") as disk:
        ops(environment, "up", "--detach")
        try:
            supervisor = supervisor_of(environment)
            assert completes(environment)
            filler = fill(disk)
            port = int(environment["POSTGRES_PORT"])
            end = time.monotonic() + FULL_FOR
            while time.monotonic() < end:
                needs_room(port)
                completes(environment)
                fill(disk)
                time.sleep(0.2)
            assert supervisor.is_running()
            filler.unlink()
            began = time.monotonic()
            while not completes(environment):
                assert time.monotonic() - began < HEALED_WITHIN
                time.sleep(0.2)

            def all_run():
                return {one["state"] for one in status(environment)["processes"].values()} == {"RUNNING"}

            eventually(all_run)
            assert time.monotonic() - began < HEALED_WITHIN
            assert supervisor.is_running()
        finally:
            ops(environment, "down")
