"""Commands that take a payload from elsewhere, or stay with a job until something happens; over real servers."""

from __future__ import annotations

import fcntl
import functools
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
from ending import complete
from factories import LEASE, WORKER, claimed, completed, dead_lettered, queued, row_of
from sqlalchemy import text

from webapp.jobs import store
from webapp.jobs.options import Terms

#: Seconds a command of these may stay.
PATIENCE = "30"


@contextmanager
def started(command, **options):
    """A process that heeds Ctrl-C, also where the suite runs in the background; one that still runs when its test fails is killed."""
    heeding = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(command, preexec_fn=heeding, **options) as process:  # noqa: PLW1509 - one call of C, and no thread holds a lock of it
        try:
            yield process
        finally:
            process.kill()


def lines(result, code=0):
    assert result.exit_code == code, result.output
    return result.stdout.splitlines()


def test_a_payload_comes_from_a_file_or_from_stdin(flask, engine, tmp_path):
    file = tmp_path / "my payload.json"
    file.write_text('{"task": "noop", "from": "é"}', encoding="utf-8")
    (made,) = lines(flask("jobs", "submit", f"@{file}"))
    assert row_of(engine, made).payload == {"task": "noop", "from": "é"}
    (made,) = lines(flask("jobs", "submit", "-", input='{"task": "noop", "n": 1}\n'))
    assert row_of(engine, made).payload == {"task": "noop", "n": 1}


@pytest.mark.parametrize("how", ["file", "stdin"])
def test_a_payload_that_is_too_large_is_not_read_to_its_end(another_app, engine, tmp_path, how):
    app = another_app(max_payload_bytes=2_000)
    large = json.dumps({"task": "noop", "x": "x" * 2_000})
    (tmp_path / "large.json").write_text(large)
    word = f"@{tmp_path / 'large.json'}" if how == "file" else "-"
    with app.app_context():
        refused = app.test_cli_runner().invoke(args=["jobs", "submit", word], input=large)
    assert (refused.exit_code, "payload: must have 2000 bytes at most" in refused.stderr) == (2, True)


def test_a_payload_that_is_no_json_is_said_of_where_it_came_from(flask, tmp_path):
    file = tmp_path / "broken.json"
    file.write_text("{")
    assert f"{file}: must be JSON: " in flask("jobs", "submit", f"@{file}").stderr
    assert "stdin: must be JSON: " in flask("jobs", "submit", "-", input="{").stderr
    assert "PAYLOAD: must be JSON: " in flask("jobs", "submit", "{").stderr


def test_a_wrong_option_is_named_as_it_was_typed(flask):
    said = flask("jobs", "submit", '{"task": "noop"}', "--priority", "12", "--max-retries", "-1").stderr
    assert "--priority: must be at most 9 (given: 12)" in said
    assert "--max-retries: must be at least 0 (given: -1)" in said
    assert "--tag.0: " in flask("jobs", "submit", '{"task": "noop"}', "--tag", "").stderr
    assert "--limit: " in flask("jobs", "list", "--limit", "0").stderr


def test_a_payload_that_is_nowhere_is_named(flask, tmp_path):
    missing = flask("jobs", "submit", f"@{tmp_path}/none.json")
    assert missing.exit_code == 2
    assert f"payload: {tmp_path}/none.json cannot be read: No such file or directory" in missing.stderr
    assert flask("jobs", "submit", f"@{tmp_path}").exit_code == 2
    assert flask("jobs", "submit", "@").exit_code == 2


def claim_next(engine):
    """Claims the one job that waits, as soon as there is one."""
    end = time.monotonic() + 30
    while not (found := ids(engine)):
        assert time.monotonic() < end, "no job came"
    with engine.begin() as connection:
        (claim,) = store.claim(connection, found, worker_id=WORKER, lease=LEASE)
    return claim


def ids(engine):
    with engine.connect() as connection:
        return connection.execute(text("SELECT id FROM jobs WHERE status = 'queued'")).scalars().all()


def test_submit_can_stay_to_the_end_and_shows_the_result(flask, engine):
    def end():
        claim = claim_next(engine)
        with engine.begin() as connection:
            complete(connection, claim, '{"rows": 5}')

    words = ("jobs", "submit", '{"task": "noop"}', "--key", "k", "--wait", "--wait-timeout", PATIENCE)
    thread = threading.Thread(target=end)
    thread.start()
    made, ended, result = lines(flask(*words))
    thread.join()
    assert (ended, json.loads(result)) == (f"{made} completed", {"rows": 5})
    again = flask(*words, "--json")
    assert (again.exit_code, json.loads(again.stdout)["id"]) == (0, made)


def test_submit_that_stays_too_long_says_so_by_its_exit_code(flask):
    _, ended = lines(flask("jobs", "submit", '{"task": "noop"}', "--wait", "--wait-timeout", "0.1"), 124)
    assert ended.endswith(" queued")


def test_tail_prints_every_change_until_the_job_is_final(engine):
    claim = claimed(engine)
    program = [
        sys.executable,
        "-m",
        "flask",
        "--app",
        "wsgi",
        "jobs",
        "tail",
        str(claim.id),
        "--timeout",
        PATIENCE,
    ]
    with started(program, stdout=subprocess.PIPE, text=True) as tail:
        assert tail.stdout.readline().rstrip().endswith(" processing  attempt 1")
        with engine.begin() as connection:
            store.note_progress(connection, claim.id, claim.attempt, done=1, total=2, note="half")
        assert '"done": 1' in tail.stdout.readline()
        with engine.begin() as connection:
            complete(connection, claim, '{"rows": 5}')
        assert tail.stdout.readline().endswith('completed  {"rows": 5}\n')
        assert tail.wait(30) == 0


@pytest.mark.parametrize(
    ("words", "code"),
    [(("wait", "{id}"), 130), (("tail", "{id}"), 0), (("watch",), 0)],
    ids=str,
)
def test_ctrl_c_is_how_one_leaves(engine, eventually, words, code):
    claim = claimed(engine)
    program = [sys.executable, "-m", "flask", "--app", "wsgi", "jobs"]
    given = [word.format(id=claim.id) for word in words]
    with started([*program, *given], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as command:
        if words[0] == "wait":
            eventually(lambda: is_watched(engine, claim.id))
        else:
            assert command.stdout.readline()
        command.send_signal(signal.SIGINT)
        _, said = command.communicate(timeout=30)
    assert (command.returncode, said) == (code, "")


def is_watched(engine, job_id):
    with engine.connect() as connection:
        return connection.execute(
            text("SELECT watched FROM jobs WHERE id = :id"), {"id": job_id}
        ).scalar_one()


def test_on_a_terminal_watch_draws_its_table_anew(engine):
    first = queued(engine)
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 120, 0, 0))
    program = [sys.executable, "-m", "flask", "--app", "wsgi", "jobs", "watch", "--every", "0.2"]
    environment = {**os.environ, "TERM": "xterm"}
    environment.pop("COLUMNS", None)
    with started(program, stdout=theirs, stderr=subprocess.DEVNULL, env=environment) as command:
        os.close(theirs)
        seen = read_until(ours, str(first.id))
        second = queued(engine)
        seen += read_until(ours, str(second.id))
        command.send_signal(signal.SIGINT)
        assert command.wait(30) == 0
    os.close(ours)
    # The cursor goes up to where the table began.
    assert "\x1b[1A" in seen
    assert "last_error" in seen


def read_until(terminal, part):
    seen = ""
    while part not in seen:
        readable, _, _ = select.select([terminal], [], [], 30)
        assert readable, f"{part} did not come: {seen!r}"
        seen += os.read(terminal, 65_536).decode()
    return seen


def test_tail_says_how_a_job_ended_before(flask, engine):
    (failed,) = lines(flask("jobs", "tail", dead_lettered(engine).id), 1)
    assert "failed  " in failed
    (later,) = lines(
        flask("jobs", "tail", queued(engine, terms=Terms(run_at=datetime.now(UTC) + timedelta(hours=2))).id, "--timeout", 0),
        124,
    )  # fmt: skip
    assert "queued  due in 1 h" in later
    job = queued(engine)
    flask("jobs", "cancel", job.id, "--reason", "ordered twice")
    (cancelled,) = lines(flask("jobs", "tail", job.id), 1)
    assert cancelled.endswith("cancelled  ordered twice")
    (found,) = lines(flask("jobs", "tail", job.id, "--json"), 1)
    assert json.loads(found)["status"] == "cancelled"


def test_watch_prints_a_line_for_each_job_that_came_or_changed(flask, engine):
    first, second = queued(engine), completed(engine)
    shown = lines(flask("jobs", "watch", "--for", "0"))
    assert [line.split()[-2] for line in shown] == [str(first.id), str(second.id)]
    shown = lines(flask("jobs", "watch", "--for", "0.5", "--every", "0.2", "--status", "queued", "--json"))
    assert [json.loads(line)["id"] for line in shown] == [str(first.id)]
    assert flask("jobs", "watch", "--for", "0", "--limit", "0").exit_code == 2


def test_why_a_job_does_not_run_is_said_and_given_as_json(flask, engine):
    job = queued(engine)
    said = lines(flask("jobs", "explain", job.id))
    assert "no live worker listens to queue" in said[0]
    found = json.loads(flask("jobs", "explain", job.id, "--json").stdout)
    assert found["state"] == "no_worker"
    assert found["sentence"] == said[0]
