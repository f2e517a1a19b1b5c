"""A server before DJPS that loses an answer, as networks do."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler

from listener import Quiet, listening


def as_it_was(job, status):
    """A job's answer as it would have been before its end."""
    return json.dumps(json.loads(job) | {"status": status, "result": None}).encode()


class LosesAnswers(BaseHTTPRequestHandler):
    """Hands requests on to DJPS; may keep the first answer to itself, and be too busy for the second request."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.keys.append(self.headers["Idempotency-Key"])
        if not self.server.loses:
            self.answer(*self.handed_on("POST", body))
        elif len(self.server.keys) == 2:
            self.answer(503, b'{"title": "Service Unavailable", "status": 503, "detail": "busy"}')
        else:
            status, job = self.handed_on("POST", body)
            if len(self.server.keys) > 1:
                self.answer(status, as_it_was(job, "queued"))

    def do_GET(self):
        self.server.waits.append(self.path)
        status, job = self.handed_on("GET", None)
        self.answer(status, as_it_was(job, "processing") if len(self.server.waits) == 1 else job)

    def handed_on(self, method, body):
        with closing(http.client.HTTPConnection(self.server.djps, timeout=40)) as there:
            kept = {
                name: value
                for name in ("Content-Type", "Idempotency-Key")
                if (value := self.headers[name]) is not None
            }
            there.request(method, self.path, body, kept)
            came = there.getresponse()
            return came.status, came.read()

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Says nothing."""


@contextmanager
def losing_answers(djps: str, *, loses: bool = True) -> Iterator[Quiet]:
    """Serves until the block ends; keeps the keys of submissions and the paths of looks.

    Args:
        djps: the URL that requests are handed on to.
        loses: if not, every submission is answered as DJPS does.
    """
    with listening(LosesAnswers) as server:
        server.djps = djps.removeprefix("http://")
        server.keys, server.waits, server.loses = [], [], loses
        yield server
