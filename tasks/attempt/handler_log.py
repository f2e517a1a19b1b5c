"""The logger that handlers get: it takes whatever they give it, and none of it looks like a field of DJPS's own."""

from __future__ import annotations

import logging
from typing import Any

from celery.exceptions import SoftTimeLimitExceeded

from webapp.infra.telemetry import logs

#: Fields that say whose line it is, and the one that DJPS fills in by itself.
STANDARD = frozenset(
    {
        "timestamp",
        "level",
        "logger",
        "message",
        "job_id",
        "attempt",
        "worker_id",
        "request_id",
        "trace_id",
        "span_id",
    }
)

#: Arguments by name that a log call takes.
_KNOWN = {"exc_info", "extra", "stack_info", "stacklevel"}

logs.let_through(SoftTimeLimitExceeded)


class HandlerLogger(logging.Logger):
    """Python's logger, but a field whose name is taken stands beside it as `extra_...` instead of raising a KeyError."""

    def log(self, level: Any, msg: object, *args: object, **named: Any) -> None:
        """Logs at a level, by number or by name; one that there is not is INFO."""
        number = (
            level
            if isinstance(level, int)
            else logging.getLevelNamesMapping().get(str(level).upper(), logging.INFO)
        )
        super().log(number, msg, *args, **named)

    def _log(self, level: int, msg: object, args: Any, /, **named: Any) -> None:  # type: ignore[override] # any name
        """A call; arguments by name that Python's logger does not know are fields."""
        fields = {name: named.pop(name) for name in named.keys() - _KNOWN}
        extra = {**_fields_of(named.pop("extra", None)), **fields}
        super()._log(level, msg, args, extra=extra or None, **named)

    def makeRecord(  # noqa: N802, PLR0917 - logging's name and arguments
        self,
        name: str,
        level: int,
        fn: str,
        lno: int,
        msg: object,
        args: Any,
        exc_info: Any,
        func: str | None = None,
        extra: Any = None,
        sinfo: str | None = None,
    ) -> logging.LogRecord:
        """The record of a call; its fields are put in here, and not by Python's own logger, which refuses some."""
        record = super().makeRecord(name, level, fn, lno, msg, args, exc_info, func, None, sinfo)
        for field, value in _fields_of(extra).items():
            taken = field in STANDARD or field in record.__dict__ or field in logs.RESERVED
            record.__dict__[f"extra_{field}" if taken else field] = value
        return record


def _fields_of(extra: object) -> dict[str, Any]:
    if extra is None:
        return {}
    try:
        return {str(name): value for name, value in dict(extra).items()}  # type: ignore[call-overload] # whatever it is
    except Exception:  # noqa: BLE001 - it may be anything
        return {"extra": extra}


def _made() -> logging.Logger:
    before = logging.getLoggerClass()
    logging.setLoggerClass(HandlerLogger)
    try:
        return logging.getLogger("djps.handler")
    finally:
        logging.setLoggerClass(before)


#: What a handler's context carries.
logger = _made()
