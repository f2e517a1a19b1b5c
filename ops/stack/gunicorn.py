"""gunicorn's configuration: `gunicorn --config python:ops.stack.gunicorn wsgi:app`."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Any

from gunicorn.glogging import Logger

from ops.stack.evenly import Shares, spread
from webapp.infra import prefork
from webapp.infra.postgres.engine import load_libraries
from webapp.infra.telemetry.logs import configuration
from webapp.server.worker import PatientWorker
from webapp.settings import current
from webapp.settings.http import MOST_SUBMISSIONS
from webapp.startup import one_sentence

with one_sentence():
    _settings = current()
#: What is asked for every few seconds by machines: a line for each that went well would bury the others.
ROUTINE = frozenset({"/metrics", "/health", "/health/ready"})


class JsonLogger(Logger):
    """Writes the access log as fields, not as a sentence."""

    def access(self, resp: Any, req: Any, environ: dict[str, Any], request_time: Any) -> None:
        """Logs one answered request; the query string stays out, it may hold anything."""
        path, status = environ.get("PATH_INFO", ""), int(str(resp.status).split()[0])
        is_routine = path in ROUTINE and status < HTTPStatus.BAD_REQUEST
        self.access_log.log(
            logging.DEBUG if is_routine else logging.INFO,
            "request answered",
            extra={
                "method": environ.get("REQUEST_METHOD"),
                "path": path[:500],
                "status": status,
                "bytes": getattr(resp, "sent", None),
                "seconds": round(request_time.total_seconds(), 6),
                "client": environ.get("REMOTE_ADDR"),
                "request_id": next((value for name, value in resp.headers if name == "X-Request-ID"), None),
                **environ.get("djps.trace", {}),
            },
        )


bind = f"{_settings.api_host}:{_settings.api_port}"
workers = _settings.api_workers
# Those that wait for a job need a thread each, beside those that work; a thread is made when it is needed.
threads = _settings.api_threads + MOST_SUBMISSIONS + _settings.max_waiters
worker_class = PatientWorker
timeout = 30
graceful_timeout = 20
keepalive = 5
# Most connections of a process. Beyond it those are closed that are missed least.
worker_connections = 1_000
# The application is imported once and forked: it opens no connection before its first request.
preload_app = True
accesslog = "-"
logger_class = JsonLogger
logconfig_dict = configuration(_settings.log_level) | {
    "loggers": {
        **configuration(_settings.log_level)["loggers"],
        "gunicorn.error": {"level": _settings.log_level, "handlers": [], "propagate": True},
        "gunicorn.access": {"level": _settings.log_level, "handlers": [], "propagate": True},
    }
}


# Twice as many places as workers: at a reload the new ones are there before the old ones have gone.
_shares = Shares(2 * workers + 2)


def pre_fork(_server: Any, worker: Any) -> None:
    """The workers share what is loaded by now, and know of each other's connections."""
    load_libraries()
    prefork.share_memory()
    worker.place = _shares.take()


def child_exit(_server: Any, worker: Any) -> None:
    """A worker has ended: its connections are gone."""
    if worker.place is not None:
        _shares.give_back(worker.place)


def post_worker_init(worker: Any) -> None:
    """Tells the worker what to expect; requests that wait answer when it is told to end, so that no one waits for them."""
    extensions = worker.app.wsgi().extensions
    extensions["watchers"].is_open = lambda: worker.alive
    worker.largest_body = extensions["largest_body"]
    extensions["sampler"].start()
    worker.prompt_paths = {"/health"}
    worker.light_paths = ("/metrics", "/openapi.json", "/docs")
    if worker.place is not None:
        spread(worker, _shares, worker.place, lambda: worker.connections)


# Its socket could scale or stop the server, and two stacks of one user would share it.
control_socket_disable = True
