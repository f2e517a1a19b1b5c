"""How a running handler says how far it is: written to its job's row, now and then, by the attempt that runs and no other."""

from __future__ import annotations

import logging
import math
import time

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from webapp.database import in_one_trip
from webapp.jobs import steering
from webapp.jobs.store import Claim

logger = logging.getLogger(__name__)

#: Shortest time between two writes, seconds; what is said in between is left out.
WRITE_EVERY = 0.5
#: Longest note, characters.
MAX_NOTE = 200


class ProgressReport:
    """Writes how far an attempt is.

    Args:
        engine: the child's.
        claim: the attempt.
    """

    __slots__ = ("_claim", "_engine", "_write_at")

    def __init__(self, engine: Engine, claim: Claim) -> None:
        self._engine = engine
        self._claim = claim
        self._write_at = 0.0

    def __call__(self, done: float, total: float | None = None, note: str = "") -> None:
        """Writes it, unless something was written a moment ago; the last step is always written.

        A database that is away costs the report and not the job.

        Raises:
            ValueError: `done` or `total` is no finite number from 0 on.
        """
        for name, value in (("done", done), ("total", total)):
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} must be a finite number, 0 or more; given: {value!r}")
        now = time.monotonic()
        if now < self._write_at and done != total:
            return
        self._write_at = now + WRITE_EVERY
        kept = note[:MAX_NOTE].replace("\x00", "").encode("utf-8", "replace").decode()
        try:
            in_one_trip(
                self._engine,
                lambda connection: steering.note_progress(
                    connection, self._claim.id, self._claim.attempt, done=done, total=total, note=kept
                ),
            )
        except SQLAlchemyError as error:
            logger.warning("progress could not be written", extra={"error_type": type(error).__name__})
