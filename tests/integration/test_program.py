"""Jobs that a Python program submits without HTTP: by the same rules, told to the workers, and without a trace in the program."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
from factories import row_of, waiting
from sqlalchemy import text
from test_writing_page import DJANGO

from webapp import program
from webapp.jobs import JobError, submit, submit_many
from webapp.jobs.errors import OptionRefused, TaskNotJudged
from webapp.jobs.submitter import SomeRefused
from webapp.program import Program

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "ops/docs/submitting-inside.md").read_text()
#: What a program has, and has afterwards as well.
SCRIPT = """
import logging, os, sys, threading
from celery import Celery, current_app
from prometheus_client import values
mine, kind, handlers = Celery("mine"), values.ValueClass, list(logging.getLogger().handlers)
from webapp.jobs import submit
placed = submit({"task": "noop", "n": 1}, idempotency_key="k")
assert placed.created, placed
assert current_app._get_current_object() is mine and values.ValueClass is kind
assert "PROMETHEUS_MULTIPROC_DIR" not in os.environ and "flask" not in sys.modules
assert list(logging.getLogger().handlers) == handlers
child = os.fork()
if child == 0:
    again = submit({"task": "noop", "n": 1}, idempotency_key="k")
    os._exit(0 if again.id == placed.id and not again.created else 1)
assert os.waitpid(child, 0)[1] == 0
assert not submit({"task": "noop", "n": 1}, idempotency_key="k").created
print(placed.id)
"""
#: The page's own module, in the smallest project of Django.
SHOP = """
import django
django.setup()
from django.core.management import call_command
from django.db import transaction
call_command("migrate", run_syncdb=True, verbosity=0)
from shop_orders import Order, place_order
order = place_order()
try:
    with transaction.atomic():
        place_order()
        raise ValueError
except ValueError:
    pass
print(order.pk, Order.objects.count())
"""


def run(settings, folder, script, **environment):
    done = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", "-c", script],
        cwd=folder,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(folder)]),
            "DATABASE_URL": settings.database_url,
            "REDIS_URL": settings.redis_url,
            "DATA_DIR": str(folder),
            **environment,
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return done.stdout.split()


@pytest.fixture
def djps(app, settings):
    with Program(settings) as made:
        yield made


def jobs_in(engine):
    with engine.connect() as connection:
        return list(connection.execute(text("SELECT id FROM jobs ORDER BY id")).scalars())


def test_a_program_submits_and_is_left_as_it_was(app, settings, engine, redis, tmp_path):
    (job_id,) = run(settings, tmp_path, SCRIPT)
    assert row_of(engine, job_id).payload == {"task": "noop", "n": 1}
    assert job_id in " ".join(waiting(redis))
    assert jobs_in(engine) == [UUID(job_id)]


def test_the_django_of_the_page_submits_what_is_committed(app, settings, engine, tmp_path):
    module = re.search(r"In `shop_orders\.py`:\n\n```python\n(.*?)```", PAGE, re.DOTALL)[1]
    for name, content in {**DJANGO, "shop_orders.py": module}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    order, orders = run(settings, tmp_path, SHOP, DJANGO_SETTINGS_MODULE="project")
    assert orders == "1"
    (job_id,) = jobs_in(engine)
    assert row_of(engine, job_id).payload == {"task": "noop", "order": int(order)}


def test_options_are_those_of_a_request(djps, engine):
    at = datetime.now(UTC) + timedelta(hours=1)
    placed = djps.submit({"task": "noop"}, run_at=at, tags={"b", "a"}, timeout=timedelta(minutes=1))
    row = row_of(engine, placed.id)
    assert (row.run_at, row.tags, row.timeout, row.tenant) == (at, ["a", "b"], 60.0, "default")
    first, second = djps.submit_many([{"payload": {"task": "noop"}, "idempotency_key": "k"}] * 2)
    assert (first.created, second.created, first.id == second.id) == (True, False, True)


def test_what_is_refused_is_a_job_error_in_one_sentence(djps, engine):
    with pytest.raises(OptionRefused, match="priority must be at most 9; given: '10'"):
        djps.submit({"task": "noop"}, priority=10)
    with pytest.raises(SomeRefused, match=r"jobs\.0: queue must be one"):
        djps.submit_many([{"payload": {"task": "noop"}, "queue": "unheard"}])
    with pytest.raises(OptionRefused, match="payload must be a JSON object"):
        djps.submit(["noop"])
    assert jobs_in(engine) == []


def test_a_task_that_is_not_known_here_is_not_given_to_the_default_handler(djps, engine):
    for submitted in (
        lambda: djps.submit({"task": "of-the-workers"}),
        lambda: djps.submit_many([{"payload": {"task": "of-the-workers"}}]),
    ):
        with pytest.raises(TaskNotJudged, match="'of-the-workers' is not known here: set HANDLERS"):
            submitted()
    assert jobs_in(engine) == []


def test_the_plain_functions_share_one_program_until_it_is_closed(app, settings, engine, monkeypatch):
    monkeypatch.setattr(program, "current", lambda: settings)
    try:
        assert submit({"task": "noop"}).created
        made = program.default()
        assert [one.created for one in submit_many([{"payload": {"task": "noop"}}] * 2)] == [True, True]
        assert program.default() is made
        with pytest.raises(JobError):
            submit({"task": "noop"}, delay=-1)
    finally:
        program.close()
    program.close()
    assert len(jobs_in(engine)) == 3


def test_without_redis_the_job_is_stored_all_the_same(app, settings, engine, closed_port):
    away = settings.model_copy(update={"redis_url": f"redis://127.0.0.1:{closed_port}/0"})
    with Program(away) as djps:
        placed = djps.submit({"task": "noop"})
    assert row_of(engine, placed.id).dispatched_at is None
