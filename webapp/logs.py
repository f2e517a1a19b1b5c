"""Logs: one JSON object a line, on standard error, from every process.

`timestamp level logger message` are always there; `request_id job_id attempt worker_id` where they are
bound. Event texts are static sentences; what varies goes into fields (`extra=`).
"""

from __future__ import annotations

import logging
import logging.config
import re
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from pythonjsonlogger.json import JsonFormatter as _JsonFormatter

from webapp import database_errors
from webapp.plainjson import text_of

_bound: ContextVar[dict[str, str | int | UUID]] = ContextVar("djps_log_fields", default={})  # noqa: B039 - never mutated

#: The attribute of a record that is many lines: the fields that each has of its own.
_EACH = "djps_each"

#: The password of a URL; it never spans two strings of a JSON line.
_PASSWORD = re.compile(r'(://[^:/@\s"]*):[^@/\s"]+@')


class JsonFormatter(_JsonFormatter):
    """Turns a record into one JSON object, with the fields bound in this context."""

    def __init__(self) -> None:
        super().__init__("%(message)s", reserved_attrs=[*_RESERVED, "color_message", "data", "taskName"])

    def format(self, record: logging.LogRecord) -> str:
        """The line: the standard four first, then bound fields, then the record's own; passwords of URLs are hidden."""
        if record.args:
            record.args = _shown(record.args)
        if record.exc_info or record.exc_text or record.stack_info or not isinstance(record.msg, str):
            line = super().format(record)
        else:
            # Most lines are a sentence and its fields: the same as below without its detours, in a third of the time.
            fields = self._standard(record)
            fields["message"] = record.getMessage() if record.args else record.msg
            for name, value in record.__dict__.items():
                if name not in self.reserved_attrs:
                    fields[name] = value
            each = fields.pop(_EACH, ({},))
            line = "\n".join([self.jsonify_log_record(fields | more) for more in each])
        return _PASSWORD.sub(r"\1:***@", line) if "://" in line else line

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's name
        """A traceback; the text of a database error, which may quote a payload or a key, is left out."""
        if ei[1] is not None and database_errors.holds_database_error(ei[1]):
            return database_errors.traceback_of(ei[1])
        return str(super().formatException(ei))

    def jsonify_log_record(self, log_data: dict[str, Any]) -> str:
        """The JSON of a line, in ASCII."""
        return text_of(log_data) or super().jsonify_log_record(log_data)

    def add_fields(
        self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]
    ) -> None:
        """Fills in a line that has more to it than a sentence and fields."""
        log_data.update(self._standard(record))
        super().add_fields(log_data, record, message_dict)

    def _standard(self, record: logging.LogRecord) -> dict[str, Any]:
        return {
            "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": "",
            **_bound.get(),
        }


def _shown(args: Any) -> Any:
    """What goes into a line's sentence, with database errors described."""
    if not isinstance(args, tuple):
        return args
    return tuple(
        database_errors.described(one)
        if isinstance(one, BaseException) and database_errors.is_of_database(one)
        else one
        for one in args
    )


_RESERVED = (*vars(logging.makeLogRecord({})), "asctime", "message")


class bound:  # noqa: N801 - it is used like a function
    """Adds fields to every line logged inside the block; None leaves a field out.

    Example:
        >>> with bound(job_id="0192"):
        ...     logging.getLogger("x").info("job started")
    """

    __slots__ = ("_fields", "_token")

    def __init__(self, **fields: str | int | UUID | None) -> None:
        self._fields = fields

    def __enter__(self) -> None:
        """The fields are on every line from here."""
        given = {name: value for name, value in self._fields.items() if value is not None}
        self._token = _bound.set({**_bound.get(), **given})

    def __exit__(self, *_: object) -> None:
        """They are off again."""
        _bound.reset(self._token)


def info_each(logger: logging.Logger, message: str, each: Iterable[Mapping[str, Any]]) -> None:
    """Logs one sentence for many: a line with these fields for each of them, made and written together."""
    if logger.isEnabledFor(logging.INFO) and (lines := tuple(each)):
        logger.info(message, extra={_EACH: lines})


def bound_field(name: str) -> str | int | UUID | None:
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
    # Nothing of ours says which line of code, thread or process wrote it, so nobody need look (Python's "Logging
    # HOWTO", section "Optimization").
    logging._srcfile = None  # noqa: SLF001 - the documented way
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging.config.dictConfig(configuration(level))
    logging.captureWarnings(capture=True)
