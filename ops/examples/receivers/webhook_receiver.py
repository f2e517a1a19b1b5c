"""Takes DJPS's callbacks: checks who signed them, and does the work of each once only.

How to run it, with the secret that the workers were given as CALLBACK_SECRETS, and `pip install standardwebhooks`:

    CALLBACK_SECRET=whsec_... PORT=8001 python3 ops/examples/receivers/webhook_receiver.py

Start DJPS with HTTP_ALLOWED_TARGETS=127.0.0.1:8001 and submit with "callback_url": "http://127.0.0.1:8001/". In front of it belongs
what you put in front of any program: TLS, and a limit on connections.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from standardwebhooks import Webhook, WebhookVerificationError

SECRET = Webhook(os.environ["CALLBACK_SECRET"])
DATABASE = os.environ.get("TOLD_DATABASE", "told.db")
#: Bytes of the largest callback that is read: 64 KiB of result, and what is around it.
LARGEST = 256 * 1024


class Receiver(BaseHTTPRequestHandler):
    """One callback a request."""

    #: Seconds that a client may be silent.
    timeout = 10

    def do_POST(self) -> None:
        """Answers 204 when the callback is done, now or before; DJPS tries again after any other answer."""
        length = int(self.headers.get("Content-Length", 0))
        if not 0 <= length <= LARGEST:
            self.send_error(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
            return
        body = self.rfile.read(length)
        try:
            # The signature covers id, time and body; one that is older than five minutes is refused.
            told = SECRET.verify(body, dict(self.headers))
        except (WebhookVerificationError, ValueError) as error:
            self.send_error(HTTPStatus.UNAUTHORIZED, str(error))
            return
        take(self.headers["webhook-id"], told)
        self.send_response(HTTPStatus.NO_CONTENT)
        self.end_headers()


def take(webhook_id: str, told: dict) -> None:
    """Does what a callback asks for; its id stays the same when it is sent again, by DJPS or by who recorded it."""
    with closing(sqlite3.connect(DATABASE, timeout=5)) as connection, connection:
        new = connection.execute("INSERT OR IGNORE INTO told (webhook_id) VALUES (?)", (webhook_id,))
        if new.rowcount == 0:
            return
        # The work stands in the transaction of the id: a crash leaves neither, and the next delivery does both.
        job = told["data"]
        connection.execute("INSERT INTO ends (job_id, status) VALUES (?, ?)", (job["id"], job["status"]))


def main() -> None:
    """Serves until it is stopped."""
    with closing(sqlite3.connect(DATABASE)) as connection, connection:
        connection.execute("CREATE TABLE IF NOT EXISTS told (webhook_id TEXT PRIMARY KEY)")
        connection.execute("CREATE TABLE IF NOT EXISTS ends (job_id TEXT, status TEXT)")
    address = (os.environ.get("HOST", "127.0.0.1"), int(os.environ.get("PORT", "8001")))
    with ThreadingHTTPServer(address, Receiver) as server:
        print(f"listening at http://{address[0]}:{server.server_port}/", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
