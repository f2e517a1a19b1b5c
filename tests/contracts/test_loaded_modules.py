"""No process loads what it does not run: each program's imports in a process of its own, and what is loaded then."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
#: What only Celery's command line needs.
COMMAND_LINE = {"celery.bin", "prompt_toolkit", "click_repl", "tornado", "flower"}
HTTP = {"flask", "flask_sqlalchemy", "flask_limiter", "gunicorn", "webapp.api"}
DATABASE = {"sqlalchemy", "psycopg2", "webapp.infra.postgres.engine"}
#: Modules that a program never loads, by the modules it is made of.
SPARED = {
    "tasks.__main__, tasks.celery": COMMAND_LINE
    | HTTP
    | {"alembic", "opentelemetry", "limits", "rich", "pycparser"},
    "tasks.__main__, tasks.clock, tasks.beat": COMMAND_LINE
    | HTTP
    | DATABASE
    | {"alembic", "opentelemetry", "limits", "rich", "urllib3", "requests", "pycparser"}
    | {"webapp.jobs", "webapp.queues", "tasks.runtime", "tasks.celery", "tasks.handlers"},
    "wsgi": COMMAND_LINE | {"alembic", "mako", "opentelemetry", "requests", "tasks.celery", "valkey"},
}


def loaded_by(modules, environment=None):
    done = subprocess.run(
        [sys.executable, "-c", f"import sys, {modules}; print(*sys.modules)"],
        cwd=ROOT,
        env={**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": "", **(environment or {})},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return set(done.stdout.split())


@pytest.mark.parametrize(("modules", "spared"), SPARED.items(), ids=SPARED)
def test_a_program_never_loads_what_it_does_not_run(modules, spared):
    assert loaded_by(modules) & spared == set()


def test_beat_needs_no_handler_and_no_database():
    wrong = {"HANDLERS": "no_such_module", "DATABASE_URL": "mysql://no.such.database"}
    assert "tasks.clock" in loaded_by("tasks.clock", wrong)


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
