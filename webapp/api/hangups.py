"""Has the client gone? A request that waits for long asks, so that its place goes to another."""

from __future__ import annotations

import select
from collections.abc import Callable
from typing import Any


def client_of(environ: dict[str, Any]) -> Callable[[], bool]:
    """A question to ask again and again: True while the client of a request is there.

    The kernel knows the end of a connection whether or not bytes are waiting before it, as a request that was sent ahead.
    Where the server shows no socket (the development server, tests) the client is always there.
    """
    socket = environ.get("gunicorn.socket")
    if socket is None:
        return lambda: True
    poller = select.poll()
    # POLLHUP and POLLERR are reported unasked.
    poller.register(socket.fileno(), select.POLLRDHUP)
    return lambda: not poller.poll(0)
