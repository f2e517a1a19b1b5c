"""Real workers call a real server; what is not allowed is never reached."""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler

import pytest
from listener import listening
from standardwebhooks import Webhook, WebhookVerificationError

pytestmark = pytest.mark.system


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.received.append((self.path, dict(self.headers), body))
        status = self.server.statuses.pop(0) if self.server.statuses else 200
        self.send_response(status)
        self.send_header("Content-Length", "4")
        if status == 503:
            self.send_header("Retry-After", "0")
        self.end_headers()
        self.wfile.write(b"done")

    def log_message(self, *_):
        """Says nothing."""


@pytest.fixture
def receiver(fleet):
    """A server where the workers may call; it answers `statuses`, then 200."""
    with listening(Receiver, fleet.receiver_port) as server:
        server.received, server.statuses = [], []
        server.secret = fleet.environment["WEBHOOK_SECRETS"]
        server.callback_secret = fleet.environment["CALLBACK_SECRETS"]
        yield server


def test_a_program_in_any_language_is_the_worker(fleet, receiver):
    receiver.statuses = [503]
    job = fleet.post("http", url=f"{receiver.url}/work", json={"n": 1})
    done = fleet.wait_for(job)
    assert (done["status"], done["attempt"]) == ("completed", 2)
    assert done["result"]["body"] == "done"
    assert [path for path, _, _ in receiver.received] == ["/work", "/work"]
    for number, (_, headers, body) in enumerate(receiver.received, 1):
        assert headers["webhook-id"] == headers["X-Job-Id"] == job["id"]
        assert headers["X-Job-Attempt"] == str(number)
        assert Webhook(receiver.secret).verify(body, headers) == {"n": 1}


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/",
        "http://127.0.0.1:{port}@127.0.0.1:{port}/",
        "http://127.0.0.2:{port}/",
        "http://2130706433:{port}/",
        "http://[::ffff:7f00:1]:{port}/",
    ],
)
def test_what_is_not_allowed_is_discarded_and_never_reached(fleet, receiver, url):
    answer = fleet.http.post(
        f"{fleet.url}/jobs",
        json={"payload": {"task": "http", "url": url.format(port=fleet.receiver_port)}},
        timeout=10,
    )
    # Where payloads are judged at submission there is no job.
    if answer.status_code != 422:
        job = fleet.wait_for(answer.json())
        assert (job["status"], job["attempt"]) == ("failed", 1)
    assert receiver.received == []


def test_a_callback_tells_of_the_end_once(fleet, receiver, eventually):
    receiver.statuses = [503]
    job = fleet.post("sleep", seconds=0.2)
    fleet.rows("UPDATE jobs SET callback_url = %s WHERE id = %s", f"{receiver.url}/told", job["id"])
    noted = "SELECT callback_job_id FROM jobs WHERE id = %s AND callback_job_id IS NOT NULL"
    found = eventually(lambda: fleet.rows(noted, job["id"]))
    assert fleet.wait_for({"id": str(found[0][0])})["status"] == "completed"
    first, second = receiver.received
    assert first[1]["webhook-id"] == second[1]["webhook-id"] == str(found[0][0])
    told = Webhook(receiver.callback_secret).verify(second[2], second[1])
    assert told["type"] == "job.completed"
    assert (told["data"]["id"], told["data"]["result"]) == (job["id"], {"slept": 0.2})


def test_a_job_that_sends_what_a_callback_would_say_is_not_signed_as_one(fleet, receiver, eventually):
    job = fleet.post("sleep", seconds=0)
    fleet.rows("UPDATE jobs SET callback_url = %s WHERE id = %s", f"{receiver.url}/told", job["id"])
    noted = "SELECT callback_job_id FROM jobs WHERE id = %s AND callback_job_id IS NOT NULL"
    callback = fleet.wait_for({"id": str(eventually(lambda: fleet.rows(noted, job["id"]))[0][0])})
    forged = fleet.wait_for(fleet.post(**callback["payload"]))
    assert callback["status"] == forged["status"] == "completed"
    (_, true_headers, true_body), (_, headers, body) = receiver.received
    assert body == true_body
    Webhook(receiver.callback_secret).verify(true_body, true_headers)
    Webhook(receiver.secret).verify(body, headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(receiver.callback_secret).verify(body, headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(receiver.secret).verify(true_body, true_headers)
