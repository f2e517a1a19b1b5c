"""The handlers of the page on writing handlers do what the page says, by the testing kit and without DJPS's servers."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "ops/docs/writing-handlers.md").read_text()
BLOCKS = dict(
    zip(
        re.findall(r"[Ii]n `(\w+\.py)`:", TEXT),
        re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL),
        strict=True,
    )
)
ORDERS = """
import sqlite3
with sqlite3.connect("shop.db") as made:
    made.execute("CREATE TABLE shipments (job_id TEXT PRIMARY KEY, item TEXT)")
made.close()
from uuid import UUID
from tasks import testing
import orders_handlers
first, second = (testing.run("ship-order", {"item": "lamp"}, job_id=UUID(int=1)) for _ in range(2))
assert first.result == {"item": "lamp", "was_shipped_before": False}, first
assert second.result == {"item": "lamp", "was_shipped_before": True}, second
"""
SHOP = """
import shop_handlers
from django.core.management import call_command
call_command("migrate", run_syncdb=True, verbosity=0)
from shop.models import Order
from tasks import testing
Order.objects.create(pk=7)
assert testing.run("confirm-order", {"order": 7}).result == {"confirmed": True}
assert testing.run("confirm-order", {"order": 7}).result == {"confirmed": False}
assert Order.objects.get(pk=7).confirmed
"""
BASKET = """
from tasks import testing
import basket_handlers
assert testing.run("price-basket", {"items": ["lamp", "sofa"]}).result == {"total": 8}
"""
EXPORT = """
from tasks import testing
import export_handlers
done = testing.run("export", {"pages": 3})
assert done.result == {"lines": 300}
assert [step.note for step in done.progress] == ["page 1", "page 2", "page 3"]
assert isinstance(testing.run("export", {"pages": 3}, cancelled=True), testing.Cancelled)
"""
INVOICE = """
from uuid import UUID
from tasks import testing
import invoice_handlers
order = {"to": "ada@example.org", "pages": 2}
first = testing.run("print-invoice", order, job_id=UUID(int=1))
assert [one.name for one in first.submitted] == ["mail", "page.0", "page.1"], first
again = testing.run("print-invoice", order, job_id=UUID(int=1), retry_count=1, submitted=first.submitted)
assert (again.submitted, again.result) == ((), first.result), again
"""
#: The smallest Django project with a model.
DJANGO = {
    "project.py": "SECRET_KEY = 'x'\nINSTALLED_APPS = ['shop']\nDEFAULT_AUTO_FIELD = 'django.db.models.AutoField'\n"
    "DATABASES = {'default': {'ENGINE': 'django.db.backends.sqlite3', 'NAME': 'django.db'}}\n",
    "shop/__init__.py": "",
    "shop/models.py": "from django.db import models\n\n\nclass Order(models.Model):\n"
    "    confirmed = models.BooleanField(default=False)\n",
}


def run(folder, script):
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=folder,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(folder)]),
            "SHOP_DATABASE_URL": "sqlite:///shop.db",
            "DJANGO_SETTINGS_MODULE": "project",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("file", "script"),
    [
        ("orders_handlers.py", ORDERS),
        ("basket_handlers.py", BASKET),
        ("export_handlers.py", EXPORT),
        ("invoice_handlers.py", INVOICE),
    ],
)
def test_a_handler_of_the_page(tmp_path, file, script):
    (tmp_path / file).write_text(BLOCKS[file])
    run(tmp_path, script)


def test_the_django_handler_of_the_page(tmp_path):
    for name, content in {**DJANGO, "shop_handlers.py": BLOCKS["shop_handlers.py"]}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    run(tmp_path, SHOP)


def test_every_handler_of_the_page_is_run_here():
    assert set(BLOCKS) == {
        "orders_handlers.py",
        "shop_handlers.py",
        "basket_handlers.py",
        "export_handlers.py",
        "invoice_handlers.py",
    }
