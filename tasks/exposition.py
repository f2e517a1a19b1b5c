"""A worker's own `/metrics`, for workers whose counters the API cannot read: those on other hosts and in other containers."""

from __future__ import annotations

import logging
import sys
import threading
import time
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import make_wsgi_app

from webapp.infra import prefork
from webapp.infra.background import Step, VitalThread
from webapp.infra.telemetry import metrics

logger = logging.getLogger(__name__)

#: How long a scraper may take to say what it wants, seconds; requests are answered one after the other.
PATIENCE = 2.0
#: How long it rests after it failed, seconds.
REST = 1.0


class _Handler(WSGIRequestHandler):
    timeout = PATIENCE

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Says nothing of a scrape: it comes every few seconds."""


class _Server(WSGIServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """Says that a scrape failed, as one line."""
        logger.error("worker's metrics could not be served", exc_info=sys.exc_info())


class Server:
    """Serves the counters of this host's processes until it is stopped.

    Args:
        host: address to listen on.
        port: and its port.

    Raises:
        OSError: it cannot be listened on.
    """

    def __init__(self, host: str, port: int) -> None:
        self.port = port
        self._server: WSGIServer = make_server(
            host, port, make_wsgi_app(metrics.stored()), server_class=_Server, handler_class=_Handler
        )
        self._stopped = threading.Event()
        self._thread = VitalThread("exposition", self._serve)
        self._thread.start()

    def _serve(self) -> None:
        """Serves until it is stopped; a turn that fails is followed by another."""
        step = Step("serve", self._server.serve_forever)
        while not self._stopped.is_set():
            if step.turn(time.monotonic()) is not None:
                with prefork.held_off():
                    metrics.background_failures.labels("exposition", step.name).inc()
                self._stopped.wait(REST)

    def forget(self) -> None:
        """Closes what a forked child inherited, so that the port is free once its parent is gone."""
        self._server.socket.close()

    def stop(self) -> None:
        """Serves them no more."""
        self._stopped.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def serve(host: str, port: int) -> Server | None:
    """Serves the counters of this host's processes; None when `port` is 0.

    A port that is taken, perhaps by another worker of this host, costs the metrics and not the worker.
    """
    if not port:
        return None
    try:
        return Server(host, port)
    except OSError as error:
        logger.warning(
            "worker's metrics cannot be served",
            extra={"host": host, "port": port, "error_type": type(error).__name__},
        )
        return None
