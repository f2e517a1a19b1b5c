"""No process loads what it does not run: each program's imports in a process of its own, and what is loaded then."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
#: What only Celery's command line needs.
COMMAND_LINE = {"celery.bin", "prompt_toolkit", "click_repl", "tornado", "flower"}
HTTP = {"flask", "flask_sqlalchemy", "flask_limiter", "gunicorn", "webapp.api"}
DATABASE = {"sqlalchemy", "psycopg2", "webapp.infra.postgres.engine"}
API, WORKER, BEAT = "wsgi", "tasks.__main__, tasks.celery", "tasks.__main__, tasks.clock, tasks.beat"
#: Modules that a program never loads, by the modules it is made of.
SPARED = {
    WORKER: COMMAND_LINE | HTTP | {"alembic", "opentelemetry", "limits", "rich", "pycparser"},
    BEAT: COMMAND_LINE
    | HTTP
    | DATABASE
    | {"alembic", "opentelemetry", "limits", "rich", "urllib3", "requests", "pycparser"}
    | {"webapp.jobs", "webapp.queues", "tasks.runtime", "tasks.celery", "tasks.handlers"},
    API: COMMAND_LINE | {"alembic", "mako", "opentelemetry", "requests", "tasks.celery", "valkey"},
    "webapp.settings": HTTP | {"celery", "redis", "webapp.jobs", "webapp.infra.broker.client"},
}
#: What is surely loaded: a program that loads nothing would spare everything.
NEEDED = {WORKER: "celery", BEAT: "celery", API: "flask_sqlalchemy", "webapp.settings": "webapp.settings"}
#: Where spans are begun: what waits for the first of them counts as well.
TRACED = (API, WORKER)
FIRST_SPAN = "from webapp.infra.telemetry import traces; traces.request('x', None, {})"
TRACING = {"webapp.infra.telemetry.spans", "opentelemetry.sdk.trace"}


@cache
def loaded_by(modules, **environment):
    """What is in memory once these modules are."""
    steps = [f"import sys, {modules}", *([FIRST_SPAN] if modules in TRACED else []), "print(*sys.modules)"]
    done = subprocess.run(
        [sys.executable, "-c", "; ".join(steps)],
        cwd=ROOT,
        env={**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": "", **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return set(done.stdout.split())


@pytest.mark.parametrize("modules", SPARED)
def test_a_program_never_loads_what_it_does_not_run(modules):
    loaded = loaded_by(modules)
    assert NEEDED[modules] in loaded
    assert loaded & SPARED[modules] == set()


@pytest.mark.parametrize("modules", TRACED)
def test_tracing_is_loaded_only_where_a_collector_is_named(modules):
    without = loaded_by(modules)
    assert "webapp.infra.telemetry.traces" in without
    assert without & TRACING == set()
    assert loaded_by(modules, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1") >= TRACING


def test_beat_needs_no_handler_and_no_database():
    wrong = {"HANDLERS": "no_such_module", "DATABASE_URL": "mysql://no.such.database"}
    assert "tasks.clock" in loaded_by("tasks.clock", **wrong)


def test_the_database_is_checked_by_those_who_need_it():
    done = subprocess.run(
        [sys.executable, "-m", "tasks", "worker"],
        cwd=ROOT,
        env={**os.environ, "DATABASE_URL": "mysql://no.such.database"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("djps: DATABASE_URL: must be a PostgreSQL URL")
    assert len(done.stderr.splitlines()) == 1
