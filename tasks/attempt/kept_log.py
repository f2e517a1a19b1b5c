"""Keeps what handlers log, where that is asked for: in memory at first, and in PostgreSQL within a second.

A thread of the process writes, for all attempts together; no handler waits for it, and an attempt that ends a quarter of a second at
most. A database that is full, slow or away costs lines, which are counted, and never the job.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
import weakref
from collections import deque
from datetime import UTC, datetime
from functools import cache
from typing import Any

from sqlalchemy import Engine

from tasks.attempt import handler_log
from webapp.infra import prefork
from webapp.infra.background import NeededThread
from webapp.infra.postgres.engine import in_transaction
from webapp.infra.telemetry import metrics
from webapp.infra.telemetry.logs import JsonFormatter
from webapp.jobs import job_logs
from webapp.jobs.job_logs import MOST_BYTES, MOST_LINES, Line, Part
from webapp.jobs.model import Claim

logger = logging.getLogger(__name__)

#: Shortest time between two writes while attempts run, seconds.
WRITE_EVERY = 1.0
#: How long an attempt that ends waits for its last lines to be written, seconds.
LAST_CALL = 0.25
#: Longest text of a line, characters.
LONGEST_TEXT = 4_096
#: Most attempts whose lines wait to be written: of a chunk of quick jobs, while the database is away.
MOST_WAITING = 500

_formatter = JsonFormatter()
_writers: weakref.WeakSet[Writer] = weakref.WeakSet()


def line_of(record: logging.LogRecord) -> Line:
    """A line as it is kept: its sentence, its fields as JSON, its traceback. Whatever a handler gives is told somehow.

    It goes through the formatter of the process's own lines, so what is hidden there is hidden here.
    """
    told: dict[str, Any] = json.loads(_formatter.format(record))
    parts = [str(told.pop("message", ""))]
    trace = told.pop("exc_info", None)
    fields = {name: value for name, value in told.items() if name not in handler_log.STANDARD}
    if fields:
        parts.append(json.dumps(fields, ensure_ascii=False))
    words = " ".join(parts) + (f"\n{trace}" if trace else "")
    # PostgreSQL keeps neither NUL nor lone surrogates.
    words = words[:LONGEST_TEXT].replace("\x00", "\ufffd").encode("utf-8", "replace").decode()
    at = datetime.fromtimestamp(record.created, UTC).isoformat().replace("+00:00", "Z")
    return Line(at, str(record.levelname)[:20], words)


class KeptLog:
    """What one attempt has logged and is not written yet: the last lines of it.

    Args:
        claim: the attempt.
        writer: writes it.
    """

    def __init__(self, claim: Claim, writer: Writer) -> None:
        self._claim = claim
        self._writer = writer
        self._lock = threading.Lock()
        self._lines: deque[Line] = deque()
        self._size = 0
        self._total = 0
        self.logger = KeptLogger(self)

    def add(self, record: logging.LogRecord) -> None:
        """Keeps a line. In a process that the handler has forked it does nothing: no thread writes there."""
        if self._writer.is_copy:
            return
        line, dropped = line_of(record), 0
        with self._lock:
            self._lines.append(line)
            self._size += line.size
            self._total += 1
            while len(self._lines) > MOST_LINES or self._size > MOST_BYTES:
                self._size -= self._lines.popleft().size
                dropped += 1
        if dropped:
            metrics.job_log_lines_dropped.inc(dropped)
        self._writer.note(self)

    def take(self) -> Part | None:
        """What is not written yet; None: nothing."""
        with self._lock:
            if not self._lines:
                return None
            lines, self._size = tuple(self._lines), 0
            self._lines.clear()
            return Part(self._claim.id, self._claim.attempt, self._total - len(lines), lines)

    def end(self, *, wait: bool) -> None:
        """The attempt is over: what is left is written at once.

        Args:
            wait: until it is, or for `LAST_CALL`.
        """
        self._writer.hurry(LAST_CALL if wait else 0.0, self)


class KeptLogger(handler_log.HandlerLogger):
    """The logger of an attempt whose lines are kept: it writes them where all handlers do, and into the attempt's log."""

    def __init__(self, log: KeptLog) -> None:
        super().__init__(handler_log.logger.name)
        self.parent = handler_log.logger
        self._log_of_attempt = log

    def handle(self, record: logging.LogRecord) -> None:
        """Writes a line, and keeps it."""
        try:
            super().handle(record)
        finally:
            self._log_of_attempt.add(record)


class Writer:
    """Writes what attempts log, from a thread of its own that begins with the first line.

    Args:
        engine: the child's.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._changed = threading.Condition()
        self._waiting: dict[KeptLog, None] = {}
        self._is_writing = False
        self._is_urgent = False
        self._write_at = 0.0
        self._thread = NeededThread("job logs", self._write_on)
        #: A handler has forked this process.
        self.is_copy = False
        _writers.add(self)

    def note(self, log: KeptLog) -> None:
        """Has a log be written soon."""
        with self._changed:
            if log in self._waiting:
                return
            if len(self._waiting) < MOST_WAITING and self._thread.ensure():
                self._waiting[log] = None
                self._changed.notify_all()
                return
        if (part := log.take()) is not None:
            metrics.job_log_lines_dropped.inc(len(part.lines))

    def hurry(self, patience: float, log: KeptLog | None = None) -> None:
        """Has what waits be written at once.

        Args:
            patience: seconds to wait until it is.
            log: only if this one waits.
        """
        with self._changed:
            if not self._is_writing and not (self._waiting if log is None else log in self._waiting):
                return
            self._is_urgent = True
            self._changed.notify_all()
            if patience > 0:
                self._changed.wait_for(lambda: not self._waiting and not self._is_writing, patience)

    def _write_on(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting)
                self._changed.wait_for(lambda: self._is_urgent, max(0.0, self._write_at - time.monotonic()))
                logs, self._waiting = list(self._waiting), {}
                self._is_urgent, self._is_writing = False, True
            try:
                self._write([part for log in logs if (part := log.take()) is not None])
            finally:
                self._write_at = time.monotonic() + WRITE_EVERY
                with self._changed:
                    self._is_writing = False
                    self._changed.notify_all()

    @prefork.held_off()
    def _write(self, parts: list[Part]) -> None:
        """Writes, or else gives up and counts: a handler's lines are not worth more."""
        if not parts:
            return
        try:
            in_transaction(self._engine, lambda connection: job_logs.write(connection, parts))
        except Exception as error:  # noqa: BLE001 - whatever it is, the next lines have their turn
            lost = sum(len(part.lines) for part in parts)
            metrics.job_log_lines_dropped.inc(lost)
            logger.warning(
                "lines of jobs could not be kept", extra={"lines": lost, "error_type": type(error).__name__}
            )


@cache
def writer_of(engine: Engine) -> Writer:
    """The writer of this process, made by the first attempt whose lines are kept."""
    return Writer(engine)


def flush() -> None:
    """Has all that waits be written, and waits for it for a moment; nothing where no line was ever kept."""
    for writer in _writers:
        writer.hurry(LAST_CALL)


def _in_a_copy() -> None:
    for writer in _writers:
        writer.is_copy = True


os.register_at_fork(after_in_child=_in_a_copy)
