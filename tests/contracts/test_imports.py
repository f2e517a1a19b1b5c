from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

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
    assert not {"flask", "celery", "redis", "webapp.jobs", "webapp.broker"} & set(loaded)


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


def test_only_those_who_own_a_transaction_commit():
    owners = {
        "webapp/jobs/queue.py",
        "webapp/jobs/undertaker.py",
        "tasks/callbacks.py",
        "tasks/execution.py",
        "tasks/chunk.py",
        "tasks/dead_letter.py",
        "tasks/recovery.py",
        "tasks/presence.py",
    }
    committing = {
        str(path.relative_to(ROOT))
        for room in ("webapp", "tasks")
        for path in (ROOT / room).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in {"commit", "begin"}
    }
    assert committing <= owners
