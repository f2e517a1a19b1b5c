"""A server on loopback that tests let DJPS call."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Quiet(ThreadingHTTPServer):
    """Its caller may hang up, which is no error."""

    url = ""

    def handle_error(self, *_: object) -> None:
        """Says nothing."""


@contextmanager
def listening(handler: type[BaseHTTPRequestHandler], port: int = 0) -> Iterator[Quiet]:
    """Serves on 127.0.0.1 until the block ends.

    Args:
        port: any that is free when 0.
    """
    server = Quiet(("127.0.0.1", port), handler)
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
