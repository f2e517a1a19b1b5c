"""A worker's own `/metrics`, for workers whose counters the API cannot read: those on other hosts and in other containers."""

from __future__ import annotations

import logging
from threading import Thread
from wsgiref.simple_server import WSGIServer

from prometheus_client import start_http_server

from webapp import metrics

logger = logging.getLogger(__name__)

Server = tuple[WSGIServer, Thread]


def serve(port: int) -> Server | None:
    """Serves the counters of this host's processes on every address; None when `port` is 0.

    A port that is taken costs the metrics and not the worker.
    """
    if not port:
        return None
    try:
        server, thread = start_http_server(port, registry=metrics.stored())
    except OSError as error:
        logger.warning(
            "worker's metrics cannot be served", extra={"port": port, "error_type": type(error).__name__}
        )
        return None
    return server, thread


def stop(server: Server | None) -> None:
    """Serves them no more."""
    if server is not None:
        server[0].shutdown()
        server[0].server_close()
        server[1].join()
