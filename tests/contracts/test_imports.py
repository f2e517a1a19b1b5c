from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_no_room_reaches_into_one_above_it():
    checked = subprocess.run(
        [Path(sys.prefix) / "bin" / "lint-imports", "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "0 broken" in checked.stdout


def test_settings_can_be_read_without_loading_anything_else():
    loaded = subprocess.run(
        [sys.executable, "-c", "import sys, webapp.settings; print(*sorted(sys.modules))"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout.split()
    assert not {"flask", "celery", "redis", "webapp.jobs", "webapp.infra.broker.client"} & set(loaded)


def test_a_worker_never_loads_flask():
    loaded = subprocess.run(
        [sys.executable, "-c", "import sys, tasks.celery; print(*sorted(sys.modules))"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout.split()
    assert "celery" in loaded
    assert not {"flask", "flask_sqlalchemy", "alembic", "webapp.api"} & set(loaded)


def test_an_api_never_loads_what_only_migrations_need():
    loaded = loaded_by("wsgi", "")
    assert "flask_sqlalchemy" in loaded
    assert not {"alembic", "mako", "requests"} & set(loaded)


def loaded_by(module, endpoint, first=""):
    """What is loaded once a module is, and would have begun a span: what waits for the first span counts as well."""
    code = f"{first}import sys, {module}\nfrom webapp.infra.telemetry import traces\ntraces.request('x', None, {{}})\nprint(*sys.modules)"
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout.split()


#: redis-py imports OpenTelemetry's metrics wherever they are installed; with this it finds none.
NOT_FOR_REDIS = (
    "import sys\nsys.modules['opentelemetry'] = None\nimport redis\ndel sys.modules['opentelemetry']\n"
)


@pytest.mark.parametrize("module", ["tasks.celery", "wsgi"])
def test_opentelemetry_is_loaded_only_where_a_collector_is_named(module):
    off = loaded_by(module, "", NOT_FOR_REDIS)
    assert "webapp.infra.telemetry.traces" in off
    assert not [
        name
        for name in off
        if name.split(".")[0] == "opentelemetry" or name == "webapp.infra.telemetry.spans"
    ]
    assert {"webapp.infra.telemetry.spans", "opentelemetry.sdk.trace"} <= set(
        loaded_by(module, "http://127.0.0.1:1")
    )


def test_only_those_who_own_a_transaction_commit():
    owners = {
        # Begins what its caller commits, as SQLAlchemy's own execute does.
        "webapp/infra/postgres/engine.py",
        "webapp/jobs/service.py",
        "webapp/queues/dispatch.py",
        # Reads only; the limits of its statements are its transaction's.
        "webapp/api/gauges.py",
        # Begins the time limit and the record of a run, and no transaction.
        "tasks/attempt/run.py",
        "tasks/testing/attempt.py",
        "tasks/chunk.py",
        "tasks/sweeps/prune.py",
        "tasks/testing/platform.py",
    }
    committing = {
        str(path.relative_to(ROOT))
        for room in ("webapp", "tasks")
        for path in (ROOT / room).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in {"commit", "begin"}
    }
    assert committing <= owners
