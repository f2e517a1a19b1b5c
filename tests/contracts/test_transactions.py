"""Who may commit: the domain's statements never do."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


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
        # Begins a step that is a batch or a workflow, in its caller's transaction.
        "webapp/workflows/advancing.py",
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
