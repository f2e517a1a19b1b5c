"""Logs: one JSON object a line, on standard error, from every process.

`timestamp level logger message` are always there; `request_id job_id attempt worker_id` where they are
bound. Event texts are static sentences; what varies goes into fields (`extra=`).
"""

from __future__ import annotations

import json
import logging
import logging.config
import re
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from types import TracebackType
from typing import Any
from uuid import UUID

from pythonjsonlogger.json import JsonFormatter as _JsonFormatter

from webapp.infra.jsontext import text_of
from webapp.infra.telemetry.log_values import MAX_FIELDS, MAX_LINE, described, placed, plain, sentence_of

logger = logging.getLogger(__name__)

_bound: ContextVar[dict[str, str | int | UUID]] = ContextVar("djps_log_fields", default={})  # noqa: B039 - never mutated

#: The attribute of a record that is many lines: the fields that each has of its own.
_EACH = "djps_each"


class _Each(tuple[Mapping[str, Any], ...]):
    """The fields of many lines; of no other type, so that nothing else can write several."""

    __slots__ = ()


#: What asks a job to stop, wherever its process is: it must come out of a log call as out of any other.
_interrupts: tuple[type[BaseException], ...] = ()


def let_through(kind: type[BaseException]) -> None:
    """Makes errors of this class, which a signal's handler raises, come out of log calls instead of being logged."""
    global _interrupts  # noqa: PLW0603 - what a process imports says what its handlers may raise
    _interrupts = tuple({*_interrupts, kind})


#: The password of a URL; it never spans two strings of a JSON line.
_PASSWORD = re.compile(r'(://[^:/@\s"]*):[^@/\s"]+@')


def _show(record: logging.LogRecord) -> None:
    """Puts what may be shown of its message and arguments in their places."""
    record.msg = _shown(record.msg)
    if isinstance(record.args, tuple):
        record.args = tuple(map(_shown, record.args))
    elif record.args:
        record.args = {name: _shown(value) for name, value in record.args.items()}


class JsonFormatter(_JsonFormatter):
    """Turns a record into one JSON object, with the fields bound in this context."""

    def __init__(self) -> None:
        super().__init__("%(message)s", reserved_attrs=list(RESERVED))

    def format(self, record: logging.LogRecord) -> str:
        """The line: the standard four first, then bound fields, then the record's own; passwords of URLs are hidden.

        What a handler gives is its own affair: a call that cannot be written as it is becomes a line that says so.
        """
        try:
            line = self._line(record)
        except _interrupts:
            raise
        except Exception as error:  # noqa: BLE001 - arguments and fields of a handler may raise anything
            line = self._line_of_broken(record, error)
        return _PASSWORD.sub(r"\1:***@", line) if "://" in line else line

    def _line(self, record: logging.LogRecord) -> str:
        _show(record)
        if record.exc_info or record.exc_text or record.stack_info or not isinstance(record.msg, str):
            return super().format(record)
        # Most lines are a sentence and its fields: the same as above without its detours, in a third of the time.
        fields = self._standard(record)
        fields["message"] = record.getMessage() if record.args else record.msg
        own = dict(self._own(record))
        if isinstance(each := own.get(_EACH), _Each):
            return "\n".join([self.jsonify_log_record({**fields, **more}) for more in each])
        return self.jsonify_log_record(placed(fields, own) if own else fields)

    def _line_of_broken(self, record: logging.LogRecord, error: Exception) -> str:
        fields = self._standard(record) | {
            "message": sentence_of(record),
            "log_call_broken": type(error).__name__,
        }
        own = list(self._own(record))
        if record.exc_info:
            own.append(("exc_info", self._traceback_of(record)))
        return self.jsonify_log_record(placed(fields, {str(name): plain(value) for name, value in own}))

    def _own(self, record: logging.LogRecord) -> Iterator[tuple[str, Any]]:
        """The fields that the call itself gave."""
        for name, value in record.__dict__.items():
            if name not in self.reserved_attrs:
                yield name, _shown(value)

    def _traceback_of(self, record: logging.LogRecord) -> str:
        try:
            return self.formatException(record.exc_info)
        except Exception:  # noqa: BLE001 - it may be anything
            return described(record.exc_info)

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's name
        """A traceback; the text of a database error, which may quote a payload or a key, is left out."""
        if ei[1] is not None and _has_database():
            from webapp.infra.postgres import database_errors  # noqa: PLC0415

            if database_errors.holds_database_error(ei[1]):
                return database_errors.traceback_of(ei[1])
        return str(super().formatException(ei))

    def jsonify_log_record(self, log_data: dict[str, Any]) -> str:
        """The JSON of a line, in ASCII; of one that is very long, the beginning of each field."""
        line = text_of(log_data) or super().jsonify_log_record(log_data)
        if len(line) <= MAX_LINE:
            return line
        return json.dumps({str(name)[:100]: plain(log_data[name]) for name in list(log_data)[:MAX_FIELDS]})

    def add_fields(
        self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]
    ) -> None:
        """Fills in a line that has more to it than a sentence and fields."""
        given: dict[str, Any] = {}
        super().add_fields(given, record, message_dict)
        # A sentence that is a dictionary has fields as well, its message among them.
        message = given.pop("message", "")
        given = {name: _shown(value) for name, value in given.items()}
        log_data.update(placed(self._standard(record) | {"message": message}, given))

    def _standard(self, record: logging.LogRecord) -> dict[str, Any]:
        return {
            "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": "",
            **_bound.get(),
        }


def _shown(value: Any) -> Any:
    """What is written of a value: of a database error, which may quote a payload or a key, its class and code."""
    if isinstance(value, BaseException) and _has_database():
        from webapp.infra.postgres import database_errors  # noqa: PLC0415

        if database_errors.is_of_database(value):
            return database_errors.described(value)
    return value


def _has_database() -> bool:
    """False in a process that has loaded no driver, as beat: no error is a database's there, and none is loaded to look."""
    return "psycopg2" in sys.modules


#: What a record has of Python's own, and what libraries put there that is no field of a line.
RESERVED = frozenset(
    {*vars(logging.makeLogRecord({})), "asctime", "message", "color_message", "data", "taskName"}
)


class LineHandler(logging.StreamHandler):  # type: ignore[type-arg] # it is made from a dictionary
    """Writes lines to a stream; where one cannot be written it is lost, and nothing else."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Lets through what asks the job to stop; anything else would print a traceback between lines of JSON."""
        error = sys.exc_info()[1]
        if isinstance(error, _interrupts):
            raise error


class bound:  # noqa: N801 - it is used like a function
    """Adds fields to every line logged inside the block; None leaves a field out.

    Args:
        ready: fields none of which is None, taken as they are: a block around each job cannot afford to look.

    Example:
        >>> with bound(job_id="0192"):
        ...     logging.getLogger("x").info("job started")
    """

    __slots__ = ("_fields", "_token")

    def __init__(
        self, ready: Mapping[str, str | int | UUID] | None = None, /, **fields: str | int | UUID | None
    ) -> None:
        self._fields = ready or {name: value for name, value in fields.items() if value is not None}

    def __enter__(self) -> None:
        """The fields are on every line from here."""
        self._token = _bound.set({**_bound.get(), **self._fields})

    def __exit__(self, *_: object) -> None:
        """They are off again."""
        _bound.reset(self._token)


def info_each(logger: logging.Logger, message: str, each: Iterable[Mapping[str, Any]]) -> None:
    """Logs one sentence for many: a line with these fields for each of them, made and written together."""
    if logger.isEnabledFor(logging.INFO) and (lines := tuple(each)):
        logger.info(message, extra={_EACH: _Each(lines)})


def bound_field(name: str) -> str | int | UUID | None:
    """The value bound to a field in this context."""
    return _bound.get().get(name)


def configuration(level: str) -> dict[str, Any]:
    """The `logging.config` dictionary of every DJPS process."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": {"()": "webapp.infra.telemetry.logs.JsonFormatter"}},
        "handlers": {"stderr": {"class": "webapp.infra.telemetry.logs.LineHandler", "formatter": "json"}},
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


def _say_that_a_thread_died(died: threading.ExceptHookArgs) -> None:
    """What a thread raises that nothing catches would otherwise be bare text between JSON lines."""
    if died.exc_type is not SystemExit:
        logger.critical(
            "thread died",
            exc_info=(died.exc_type, died.exc_value or died.exc_type(), died.exc_traceback),
            extra={"part": died.thread.name if died.thread else None},
        )


def configure(level: str) -> None:
    """Sends every log line and every warning of this process to standard error as JSON."""
    # Nothing of ours says which line of code, thread or process wrote it, so no one need look (Python's "Logging
    # HOWTO", section "Optimization").
    logging._srcfile = None  # noqa: SLF001 - the documented way
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging.config.dictConfig(configuration(level))
    logging.captureWarnings(capture=True)
    threading.excepthook = _say_that_a_thread_died


def catch_strays() -> None:
    """Makes errors that nothing in this process catches, in a thread or in a finalizer, lines of the log.

    Python prints them as tracebacks, between the lines.
    """
    threading.excepthook = _thread_failed
    sys.unraisablehook = _unraisable


def _thread_failed(args: threading.ExceptHookArgs) -> None:
    if args.exc_type is SystemExit:
        return
    name = args.thread.name if args.thread is not None else None
    _log_stray("thread failed", args.exc_type, args.exc_value, args.exc_traceback, of=name)


def _unraisable(args: sys.UnraisableHookArgs) -> None:
    _log_stray(
        "error that nothing could catch",
        args.exc_type,
        args.exc_value,
        args.exc_traceback,
        of=described(args.object),
    )


def _log_stray(
    sentence: str,
    kind: type[BaseException],
    error: BaseException | None,
    trace: TracebackType | None,
    **fields: str | None,
) -> None:
    told = error if error is not None else kind()
    logging.getLogger("python").error(sentence, exc_info=(kind, told, trace), extra=fields)
