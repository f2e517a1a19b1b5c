"""The examples that submit jobs: one job for one key whatever is lost, its result printed, and what is refused said."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from uuid import uuid4

import pytest
from listener import listening
from lossy import losing_answers

pytestmark = pytest.mark.system

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "ops/examples/callers"
#: How each language runs its file.
COMMANDS = {
    "submit.py": (sys.executable,),
    "submit.mjs": ("node",),
    "submit.php": ("php",),
    "submit.rb": ("ruby",),
    "submit.go": ("go", "run"),
    "submit.sh": ("bash",),
}
#: Seconds that a caller may take; Go compiles it first.
PATIENCE = 90


@pytest.fixture(params=COMMANDS, scope="module")
def caller(request, tmp_path_factory):
    """Runs one of the callers; gives its exit code, what it printed and what it complained of."""
    program, *words = COMMANDS[request.param]
    if shutil.which(program) is None:
        pytest.skip(f"{request.param} was not run, for there is no `{program}` on PATH")
    cache = str(tmp_path_factory.getbasetemp() / "go")

    def call(url, payload, key, timeout="10"):
        return subprocess.run(
            [program, *words, str(FOLDER / request.param), json.dumps(payload), key],
            env={
                "PATH": os.environ["PATH"],
                "HOME": cache,
                "GOCACHE": cache,
                "DJPS_URL": url,
                "DJPS_TIMEOUT": timeout,
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )

    return call


def test_a_lost_answer_makes_no_second_job_and_the_result_is_printed(fleet, caller):
    key = f"order-{uuid4()}"
    payload = {"task": "sleep", "seconds": 0.25, "for": key}
    with losing_answers(fleet.url) as server:
        done = caller(server.url, payload, key)
        keys, waits = server.keys, server.waits
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    # The shell's prints the whole job, for it has nothing that reads JSON.
    assert printed.get("result", printed) == {"slept": 0.25}
    assert keys == [key] * 3
    made = fleet.rows("SELECT id FROM jobs WHERE payload->>'for' = %s", key)
    assert waits == [f"/jobs/{job}?wait=20" for (job,) in made] * 2


def test_what_is_refused_is_said_at_once(fleet, caller):
    key = f"order-{uuid4()}"
    with losing_answers(fleet.url, loses=False) as server:
        done = caller(server.url, {"task": "slep"}, key)
    assert (done.returncode, done.stdout, server.keys) == (1, "", [key])
    assert "422" in done.stderr
    assert "did you mean 'sleep'?" in done.stderr


def test_a_job_that_fails_is_no_success(fleet, caller):
    done = caller(fleet.url, {"task": "no-use"}, f"order-{uuid4()}")
    assert done.returncode == 1
    assert "never works" in done.stdout + done.stderr


class NeverAnswers(BaseHTTPRequestHandler):
    def do_POST(self):
        self.server.keys.append(self.headers["Idempotency-Key"])
        self.server.over.wait(PATIENCE)
        self.close_connection = True

    def log_message(self, *_):
        """Says nothing."""


def test_a_server_that_never_answers_is_given_up(caller):
    with listening(NeverAnswers) as server:
        server.keys, server.over = [], threading.Event()
        try:
            done = caller(server.url, {"task": "noop"}, "order-17", timeout="0.3")
        finally:
            server.over.set()
    assert done.returncode == 1
    assert "no answer" in done.stderr
    assert server.keys == ["order-17"] * 4
