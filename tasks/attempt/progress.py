"""The progress of a running handler: written to its job's row, now and then, by the attempt that runs and no other."""

from __future__ import annotations

import logging
import sys
import time
from typing import NamedTuple

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from webapp.infra.background import Clock
from webapp.infra.postgres.engine import in_one_trip
from webapp.jobs import store
from webapp.jobs.model import Claim
from webapp.jobs.options import checked_number

logger = logging.getLogger(__name__)

#: Shortest time between two writes, seconds; of what is said in between, the last is written at the end.
WRITE_EVERY = 0.5
#: Digits after the point that are kept of a number: what sums of fractions leave behind them is of no use to anybody.
DIGITS = 6
#: Longest note, characters.
MAX_NOTE = 200


class Progress(NamedTuple):
    """How far an attempt is.

    Args:
        done: how much is done, in units of the handler's choice.
        total: how much there is; None when that is not known.
        note: a few words.
    """

    done: float
    total: float | None
    note: str


def said(done: float, total: float | None = None, note: str = "") -> Progress:
    """What a handler says of its progress, in the form in which it is kept. Pure.

    Raises:
        ValueError: `done` or `total` is no finite number from 0 on.

    Example:
        >>> said(0.1 + 0.2, 3, "page 1")
        Progress(done=0.3, total=3.0, note='page 1')
    """
    given = checked_number("done", done, 0, sys.float_info.max)
    whole = None if total is None else checked_number("total", total, 0, sys.float_info.max)
    # A note may come from anywhere; PostgreSQL keeps neither NUL nor lone surrogates.
    words = str(note)[:MAX_NOTE].replace("\x00", "").encode("utf-8", "replace").decode()
    return Progress(round(given, DIGITS), whole if whole is None else round(whole, DIGITS), words)


class ProgressReport:
    """Writes how far an attempt is.

    Args:
        engine: the child's.
        claim: the attempt.
        clock: seconds, monotonic.
    """

    __slots__ = ("_claim", "_clock", "_engine", "_last_write_at", "_unsaid", "_write_at")

    def __init__(self, engine: Engine, claim: Claim, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._engine = engine
        self._claim = claim
        self._write_at = 0.0
        self._last_write_at = 0.0
        self._unsaid: Progress | None = None

    def __call__(self, done: float, total: float | None = None, note: str = "") -> None:
        """Writes it, unless something was written a moment ago: then it is kept, and written at the end of the attempt.

        The last step does not wait for the one before it, only for another last one. A database that is away costs the
        report and not the job.

        Raises:
            ValueError: `done` or `total` is no finite number from 0 on.
        """
        self._unsaid = progress = said(done, total, note)
        now = self._clock()
        if now >= self._write_at or (progress.done == progress.total and now >= self._last_write_at):
            self._write(now)

    def flush(self) -> None:
        """Writes what was said last, if it was not; the attempt is over, and no error comes out of this."""
        if self._unsaid is not None:
            try:
                self._write(self._clock())
            except Exception as error:  # noqa: BLE001 - a time limit may strike here, and the handler is done
                logger.warning("progress could not be written", extra={"error_type": type(error).__name__})

    def _write(self, now: float) -> None:
        if self._unsaid is None:
            return
        (done, total, note), self._unsaid = self._unsaid, None
        self._write_at = now + WRITE_EVERY
        if done == total:
            self._last_write_at = now + WRITE_EVERY
        try:
            in_one_trip(
                self._engine,
                lambda connection: store.note_progress(
                    connection, self._claim.id, self._claim.attempt, done=done, total=total, note=note
                ),
            )
        except SQLAlchemyError as error:
            logger.warning("progress could not be written", extra={"error_type": type(error).__name__})
