"""The examples of handlers and receivers do what they are there for, on a real stack that runs them."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import psycopg2
import pytest
import requests
from conftest import CALLBACK_SECRET, Fleet, database_of_its_own
from smtp_sink import smtp_sink
from standardwebhooks import Webhook

pytestmark = pytest.mark.system

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "ops/examples"
MAIL = {"to": "ada@example.org", "subject": "Your order", "text": "It is on its way.\n.\nBye"}


@pytest.fixture(scope="module")
def shop():
    """The URL of the database that the import writes to."""
    with database_of_its_own("djps_examples_shop") as url:
        yield url


@pytest.fixture(scope="module")
def sink():
    with smtp_sink() as made:
        yield made


@pytest.fixture(scope="module")
def fleet(tmp_path_factory, shop, sink, migrated_database):
    """A stack whose handlers are the examples."""
    folder = tmp_path_factory.mktemp("examples")
    (folder / "imports").mkdir()
    with migrated_database("djps_examples") as url:
        made = Fleet(folder, url, migrated=True)
        made.environment |= {
            "HANDLERS": "mail_handlers,import_handlers",
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(EXAMPLES / "handlers")]),
            "SMTP_PORT": str(sink.port),
            "IMPORT_FOLDER": str(folder / "imports"),
            "IMPORT_DATABASE_URL": shop,
        }
        for _ in range(2):
            tables = [sys.executable, str(EXAMPLES / "handlers/import_handlers.py")]
            subprocess.run(tables, env=made.environment, check=True, timeout=60)
        try:
            made.up()
            yield made
        finally:
            made.stop_all()


def opened(shop):
    return closing(psycopg2.connect(shop.replace("+psycopg2", "")))


@pytest.fixture
def held(shop):
    """Keeps imports waiting at a line: holds its row of the stock until the connection that this makes is rolled back."""
    with opened(shop) as connection, connection.cursor() as cursor:

        def hold(sku):
            cursor.execute("INSERT INTO stock VALUES (%s, 0)", [sku])
            connection.commit()
            cursor.execute("SELECT 1 FROM stock WHERE sku = %s FOR UPDATE", [sku])
            return connection

        yield hold


def rows(shop, statement, *values):
    with opened(shop) as connection, connection.cursor() as cursor:
        cursor.execute(statement, values)
        return cursor.fetchall()


def stock(shop, start):
    """What is booked of the goods whose names begin so."""
    return dict(rows(shop, "SELECT sku, amount FROM stock WHERE sku LIKE %s", f"{start}%"))


def lines_of(shop, job):
    """How many lines an import has booked."""
    found = rows(shop, "SELECT done FROM imports WHERE job_id = %s", job["id"])
    return found[0][0] if found else None


def test_a_mail_is_sent_under_the_jobs_id(fleet, sink):
    done = fleet.wait_for(fleet.post("send-mail", **MAIL))
    (mail,) = [one for one in sink.mails if done["id"] in one["Message-ID"]]
    assert (done["status"], done["result"]) == ("completed", {"message_id": mail["Message-ID"]})
    assert (mail["To"], mail["Subject"]) == (MAIL["to"], MAIL["subject"])
    assert mail.get_content().splitlines() == MAIL["text"].splitlines()
    assert mail["Date"].datetime.tzinfo is not None


def test_a_mail_is_the_same_one_at_the_next_try(fleet, sink):
    sink.answers["grey@example.org"] = ["451 greylisted", "250 ok"]
    job = fleet.submit({"payload": {"task": "send-mail", **MAIL, "to": "grey@example.org"}, "backoff": [0.1]})
    done = fleet.wait_for(job)
    assert (done["status"], done["attempt"], done["retry_count"]) == ("completed", 2, 1)
    assert fleet.attempts(job) == [(1, "failed"), (2, "completed")]
    assert len([one for one in sink.mails if job["id"] in one["Message-ID"]]) == 1


def test_a_recipient_who_is_refused_for_good_is_not_tried_again(fleet, sink):
    sink.answers["gone@example.org"] = ["550 no such mailbox"]
    dead = fleet.wait_for(fleet.post("send-mail", **MAIL | {"to": "gone@example.org"}))
    assert (dead["status"], dead["attempt"]) == ("failed", 1)
    assert dead["last_error"] == "Discard: 550 no such mailbox"


@pytest.mark.parametrize(
    "wrong", [{"to": "ada"}, {"to": "a@b, c@d"}, {"subject": "Hello\nBcc: all@example.org"}, {"text": None}]
)
def test_what_is_no_mail_is_refused_at_submission(fleet, wrong):
    payload = {"task": "send-mail", **MAIL, **wrong}
    answer = fleet.http.post(f"{fleet.url}/jobs", json={"payload": payload}, timeout=10)
    assert answer.status_code == 422
    assert f"payload.{next(iter(wrong))}" in answer.json()["detail"]


def written(fleet, name, lines):
    """Writes a file of movements; gives the payload that imports it."""
    text = "sku,amount\n" + "".join(f"{sku},{amount}\n" for sku, amount in lines)
    (fleet.folder / "imports" / name).write_text(text)
    return {"file": name}


def test_an_import_whose_worker_dies_books_each_line_once(fleet, shop, held, eventually):
    lines = [(f"killed-{n % 7}", 1) for n in range(450)] + [("killed-held", 5)]
    payload = written(fleet, "killed.csv", lines)
    holder = held("killed-held")
    job = fleet.post("import-csv", **payload)
    eventually(lambda: lines_of(shop, job) == 400)
    os.kill(fleet.child_running(job), signal.SIGKILL)
    holder.rollback()
    done = fleet.wait_for(job)
    assert (done["status"], done["attempt"]) == ("completed", 2)
    assert done["result"] == {"lines": 451, "lines_of_this_attempt": 51}
    assert (done["progress"]["done"], done["progress"]["total"]) == (451, 451)
    assert stock(shop, "killed-") == {sku: sum(n for one, n in lines if one == sku) for sku, _ in lines}


def test_an_import_stops_when_it_is_cancelled_and_goes_on_later(fleet, shop, held, eventually):
    lines = [(f"cancelled-{n // 100}", 1) for n in range(400)]
    payload = written(fleet, "cancelled.csv", lines)
    holder = held("cancelled-1")
    job = fleet.post("import-csv", **payload)
    eventually(lambda: lines_of(shop, job) == 100)
    asked_to_stop = fleet.http.post(f"{fleet.url}/jobs/{job['id']}/cancel", timeout=10)
    assert asked_to_stop.status_code == 202
    # A handler looks once a second at most.
    late = "SELECT now() > cancel_requested_at + interval '1.1 seconds' FROM jobs WHERE id = %s"
    eventually(lambda: fleet.rows(late, job["id"]) == [(True,)])
    holder.rollback()
    assert fleet.wait_for(job)["status"] == "cancelled"
    assert fleet.attempts(job) == [(1, "cancelled")]
    assert sum(stock(shop, "cancelled-").values()) == lines_of(shop, job) == 200
    fleet.http.post(f"{fleet.url}/jobs/{job['id']}/retry", timeout=10)
    done = fleet.wait_for(job, "completed", "failed")
    assert done["status"] == "completed"
    assert done["result"] == {"lines": 400, "lines_of_this_attempt": 200}
    assert set(stock(shop, "cancelled-").values()) == {100}


def test_an_import_goes_on_where_its_file_was_wrong(fleet, shop):
    lines = [("mended", 1)] * 150
    payload = written(fleet, "mended.csv", [*lines, ("mended", "many")])
    dead = fleet.wait_for(fleet.post("import-csv", **payload))
    assert (dead["status"], dead["attempt"]) == ("failed", 1)
    assert dead["last_error"].startswith("Discard: line 151 of the file: ValueError")
    assert stock(shop, "mended")["mended"] == 100
    written(fleet, "mended.csv", [*lines, ("mended", 50)])
    fleet.http.post(f"{fleet.url}/jobs/{dead['id']}/retry", timeout=10)
    done = fleet.wait_for(dead, "completed")
    assert done["result"] == {"lines": 151, "lines_of_this_attempt": 51}
    assert stock(shop, "mended")["mended"] == 200


def test_an_import_reads_no_file_outside_its_folder(fleet):
    payload = {"task": "import-csv", "file": "../user_handlers.csv"}
    answer = fleet.http.post(f"{fleet.url}/jobs", json={"payload": payload}, timeout=10)
    assert answer.status_code == 422


@pytest.fixture
def receiver(fleet, tmp_path, eventually):
    """The receiver as a process, where the workers may call; gives its address and its database."""
    database = tmp_path / "told.db"
    environment = {
        "PATH": os.environ["PATH"],
        "CALLBACK_SECRET": CALLBACK_SECRET,
        "PORT": str(fleet.receiver_port),
        "TOLD_DATABASE": str(database),
    }
    with (tmp_path / "receiver.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, str(EXAMPLES / "receivers/webhook_receiver.py")],
            env=environment,
            cwd=tmp_path,
            stdout=log,
            stderr=log,
        )
    try:
        eventually(lambda: "listening" in (tmp_path / "receiver.log").read_text())
        yield f"http://127.0.0.1:{fleet.receiver_port}/", database
    finally:
        process.terminate()
        process.wait(10)


def told_of(database):
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute("SELECT job_id, status FROM ends").fetchall()


def test_the_receiver_takes_what_djps_tells_it(fleet, receiver, eventually):
    url, database = receiver
    job = fleet.submit({"payload": {"task": "noop"}, "callback_url": url})
    eventually(lambda: told_of(database) == [(job["id"], "completed")])
    callback = eventually(lambda: fleet.job(job["id"])["callback_job_id"])
    assert fleet.wait_for({"id": callback})["result"]["status"] == 204


def test_the_receiver_does_a_replay_once_and_refuses_what_is_not_signed(receiver):
    url, database = receiver
    body = '{"type": "job.failed", "data": {"id": "01a2", "status": "failed"}}'

    def post(secret=CALLBACK_SECRET, at=0, sent=body, **changed):
        moment = datetime.fromtimestamp(int(time.time()) + at, UTC)
        headers = {
            "webhook-id": "msg-1",
            "webhook-timestamp": str(int(moment.timestamp())),
            "webhook-signature": Webhook(secret).sign(msg_id="msg-1", timestamp=moment, data=body),
        }
        return requests.post(url, sent, headers=headers | changed, timeout=10).status_code

    assert post(secret="whsec_" + "b" * 32) == 401
    assert post(at=-310) == 401
    assert post(sent=body.replace("failed", "completed")) == 401
    assert post(**{"webhook-id": "msg-2"}) == 401
    assert post(**{"webhook-signature": "nonsense"}) == 401
    assert requests.post(url, body, timeout=10).status_code == 401
    assert requests.post(url, "x" * 300_000, timeout=10).status_code == 413
    assert told_of(database) == []
    assert [post(), post()] == [204, 204]
    assert told_of(database) == [("01a2", "failed")]
