"""What a forked child's first connection costs: what could be loaded before the fork is shared with the parent."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
#: Connects in a forked child, and prints which modules that loaded and how many KiB of memory it made the child's own.
PROGRAM = """
import json, os, sys
from sqlalchemy import create_engine
from webapp.infra import prefork
from webapp.infra.postgres import engine
from webapp.settings import current

def own():
    with open("/proc/self/smaps_rollup") as rollup:
        return next(int(line.split()[1]) for line in rollup if line.startswith("Private_Dirty:"))

url = current().database_url
if sys.argv[1] == "loaded":
    engine.load_libraries()
prefork.share_memory()
if not os.fork():
    before, modules = own(), set(sys.modules)
    create_engine(url, **engine.engine_options("test", pool_size=1, url=url)).connect().close()
    print(json.dumps({"kib": own() - before, "modules": sorted(set(sys.modules) - modules)}), flush=True)
    os._exit(0)
sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
"""


def first_connection(settings, before):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, before],
        cwd=ROOT,
        env={**os.environ, "DATABASE_URL": settings.database_url},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return json.loads(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel says how much memory is a process's own")
def test_what_a_first_connection_loads_is_shared_with_the_parent(settings):
    without, loaded = (first_connection(settings, before) for before in ("nothing", "loaded"))
    assert "psycopg2.extras" in without["modules"]
    assert loaded["modules"] == []
    assert without["kib"] - loaded["kib"] > 1_000
