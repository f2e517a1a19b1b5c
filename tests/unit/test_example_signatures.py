"""The examples that check a callback's signature take what DJPS signs, and nothing else."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from standardwebhooks import Webhook

FOLDER = Path(__file__).resolve().parents[2] / "ops/examples/receivers"
COMMANDS = {
    "verify.mjs": ("node",),
    "verify.php": ("php",),
    "verify.rb": ("ruby",),
    "verify.go": ("go", "run"),
}
SECRET, OTHER = (f"whsec_{base64.b64encode(one * 32).decode()}" for one in (b"\xfb", b"b"))
BODY = '{"type": "job.completed", "data": {"id": "01a2", "status": "completed", "result": "é"}}'


def signed(secret, at):
    return Webhook(secret).sign(msg_id="msg-1", timestamp=datetime.fromtimestamp(at, UTC), data=BODY)


@pytest.fixture(params=COMMANDS, scope="module")
def verify(request, tmp_path_factory):
    """Runs one of the files over a request as CGI gives it."""
    program, *words = COMMANDS[request.param]
    if shutil.which(program) is None:
        pytest.skip(f"{request.param} was not run, for there is no `{program}` on PATH")
    cache = str(tmp_path_factory.getbasetemp() / "go")

    def run(signature, at, *, body=BODY, webhook_id="msg-1"):
        given = {
            "CALLBACK_SECRET": SECRET,
            "HTTP_WEBHOOK_ID": webhook_id,
            "HTTP_WEBHOOK_TIMESTAMP": str(at),
            "HTTP_WEBHOOK_SIGNATURE": signature,
        }
        return subprocess.run(
            [program, *words, str(FOLDER / request.param)],
            env={"PATH": os.environ["PATH"], "HOME": cache, "GOCACHE": cache, **given},
            input=body,
            capture_output=True,
            text=True,
            encoding="utf-8",
            check=False,
            timeout=90,
        )

    return run


@pytest.mark.parametrize("secrets", [[SECRET], [OTHER, SECRET], [SECRET, OTHER]])
def test_what_is_signed_is_taken(verify, secrets):
    now = int(time.time())
    done = verify(" ".join(["v1a,x=", *(signed(secret, now) for secret in secrets)]), now)
    assert (done.returncode, done.stdout) == (0, "01a2 completed\n"), done.stderr


def test_a_signature_of_something_else_is_refused(verify):
    now = int(time.time())
    true = signed(SECRET, now)
    for done in (
        verify(true, now, body=BODY.replace("01a2", "01a3")),
        verify(true, now, webhook_id="msg-2"),
        verify(true, now, webhook_id=""),
        verify(true, now + 1),
        verify(true, ""),
    ):
        assert_refused(done)


def test_a_signature_by_someone_else_is_refused(verify):
    now = int(time.time())
    true = signed(SECRET, now)
    for signature in (signed(OTHER, now), true.removeprefix("v1,"), true.replace("v1,", "v2,"), "v1,", ""):
        assert_refused(verify(signature, now))


@pytest.mark.parametrize("seconds", [-310, 310])
def test_what_is_old_or_of_the_future_is_refused(verify, seconds):
    at = int(time.time()) + seconds
    assert_refused(verify(signed(SECRET, at), at))


def assert_refused(done):
    assert (done.returncode, done.stdout) == (1, "")
    assert "not signed by DJPS" in done.stderr
