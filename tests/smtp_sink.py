"""A mail server on loopback that keeps what it gets: enough of RFC 5321 for `smtplib`."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes, policy


class Session(socketserver.StreamRequestHandler):
    """One client's commands; a recipient is answered with what `server.answers` has for it, its last one from then on."""

    def handle(self) -> None:
        self.say("220 sink")
        while line := self.rfile.readline():
            match line.split(b":")[0].split()[0].upper():
                case b"RCPT":
                    to = line.decode().partition("<")[2].partition(">")[0]
                    waiting = self.server.answers.get(to, ["250 ok"])
                    self.say(waiting.pop(0) if len(waiting) > 1 else waiting[0])
                case b"DATA":
                    self.say("354 go on")
                    self.server.mails.append(message_from_bytes(self.text(), policy=policy.default))
                    self.say("250 kept")
                case b"QUIT":
                    self.say("221 bye")
                    return
                case _:
                    self.say("250 ok")

    def text(self) -> bytes:
        lines = iter(self.rfile.readline, b".\r\n")
        return b"".join(line.removeprefix(b".") for line in lines)

    def say(self, line: str) -> None:
        self.wfile.write(f"{line}\r\n".encode())


class Sink(socketserver.ThreadingTCPServer):
    """The server, its mails and its answers."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Session)
        self.port = self.server_address[1]
        self.mails: list = []
        self.answers: dict[str, list[str]] = {}


@contextmanager
def smtp_sink() -> Iterator[Sink]:
    """Takes mail on 127.0.0.1 until the block ends."""
    with Sink() as sink:
        thread = threading.Thread(target=sink.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield sink
        finally:
            sink.shutdown()
            thread.join()
