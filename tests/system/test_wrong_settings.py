"""Every program of DJPS says in one sentence which setting is wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from stacks import ROOT

pytestmark = pytest.mark.system


@pytest.mark.parametrize(
    "command",
    [
        ("flask", "--app", "wsgi", "jobs", "list"),
        ("flask", "--app", "wsgi", "db", "upgrade"),
        ("python", "-m", "tasks", "worker"),
        ("celery", "-A", "tasks", "worker"),
        ("celery", "-A", "tasks", "beat"),
        ("gunicorn", "--config", "python:ops.stack.gunicorn", "wsgi:app"),
    ],
)
@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [("NUM_WORKERS", "many", "NUM_WORKERS: "), ("HANDLERS", "typo", "HANDLERS: cannot import 'typo'")],
)
def test_every_program_says_in_one_sentence_what_is_wrong(command, name, value, sentence):
    program = str(Path(sys.prefix) / "bin" / command[0])
    done = subprocess.run(
        [program, *command[1:]],
        env={**os.environ, name: value},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode != 0
    said = (done.stdout + done.stderr).strip()
    assert said.startswith(f"djps: {sentence}")
    assert len(said.splitlines()) == 1
