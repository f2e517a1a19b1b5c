"""Logs: one JSON object a line, on standard error, from every process.

`timestamp level logger message` are always there; `request_id job_id attempt worker_id` where they are
bound. Event texts are static sentences; what varies goes into fields (`extra=`).
"""

from __future__ import annotations

import logging
import logging.config
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

from pythonjsonlogger.json import JsonFormatter as _JsonFormatter

_bound: ContextVar[dict[str, str | int]] = ContextVar("djps_log_fields", default={})  # noqa: B039 - never mutated

#: The password of a URL; it never spans two strings of a JSON line.
_PASSWORD = re.compile(r'(://[^:/@\s"]*):[^@/\s"]+@')


class JsonFormatter(_JsonFormatter):
    """Turns a record into one JSON object, with the fields bound in this context."""

    def __init__(self) -> None:
        super().__init__("%(message)s", reserved_attrs=[*_RESERVED, "color_message", "data", "taskName"])

    def add_fields(
        self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]
    ) -> None:
        """Fills in the line: the standard four first, then bound fields, then the record's own."""
        log_data["timestamp"] = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        log_data["level"] = record.levelname
        log_data["logger"] = record.name
        log_data["message"] = ""
        log_data.update(_bound.get())
        super().add_fields(log_data, record, message_dict)

    def format(self, record: logging.LogRecord) -> str:
        """The line, with the passwords of URLs hidden wherever they stand."""
        return _PASSWORD.sub(r"\1:***@", super().format(record))


_RESERVED = (*vars(logging.makeLogRecord({})), "asctime", "message")


@contextmanager
def bound(**fields: str | int | None) -> Iterator[None]:
    """Adds fields to every line logged inside the block.

    Example:
        >>> with bound(job_id="0192"):
        ...     logging.getLogger("x").info("job started")
    """
    token = _bound.set(
        {**_bound.get(), **{name: value for name, value in fields.items() if value is not None}}
    )
    try:
        yield
    finally:
        _bound.reset(token)


def bound_field(name: str) -> str | int | None:
    """The value bound to a field in this context."""
    return _bound.get().get(name)


def configuration(level: str) -> dict[str, Any]:
    """The `logging.config` dictionary of every DJPS process."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": {"()": "webapp.logs.JsonFormatter"}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "json"}},
        "root": {"level": level, "handlers": ["stderr"]},
        "loggers": {
            # Celery's own lines about a task repeat ours, and show arguments and results.
            "celery.worker.strategy": {"level": "WARNING"},
            "celery.app.trace": {"level": "CRITICAL"},
            "celery.beat": {"level": "WARNING"},
            "kombu": {"level": "WARNING"},
            # billiard's logger does not propagate; without a handler it prints bare text.
            "multiprocessing": {"level": "WARNING", "handlers": ["stderr"], "propagate": False},
            "alembic.runtime.plugins": {"level": "WARNING"},
            "tornado.access": {"level": "WARNING"},
        },
    }


def configure(level: str) -> None:
    """Sends every log line and every warning of this process to standard error as JSON."""
    logging.config.dictConfig(configuration(level))
    logging.captureWarnings(capture=True)
