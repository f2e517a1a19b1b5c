"""Tells a running handler that its job should stop: it asks, and the answer is looked up in the job's row.

The row is what survives a restart of anything, so there is no second place where a cancellation is kept. A handler that
never asks is killed by its worker's parent after CANCEL_GRACE (`tasks.presence.cancel`).
"""

from __future__ import annotations

import logging
import time

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from webapp.infra.background import Clock
from webapp.infra.postgres.engine import in_one_trip
from webapp.jobs import control
from webapp.jobs.model import Claim

logger = logging.getLogger(__name__)

#: Seconds between two looks at the row, however often the handler asks.
LOOK_EVERY = 1.0


class CancelWatch:
    """True if an attempt was asked to stop, when it is called; once it was, that stays so.

    Args:
        engine: the child's.
        claim: the attempt.
        clock: seconds, monotonic.
    """

    __slots__ = ("_asked", "_claim", "_clock", "_engine", "_look_at")

    def __init__(self, engine: Engine, claim: Claim, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._engine = engine
        self._claim = claim
        self._asked = False
        self._look_at = 0.0

    def __call__(self) -> bool:
        """True once the job's cancellation was asked, or its lease was lost; False while the database is away."""
        now = self._clock()
        if self._asked or now < self._look_at:
            return self._asked
        self._look_at = now + LOOK_EVERY
        try:
            self._asked = in_one_trip(
                self._engine,
                lambda connection: control.is_cancel_asked(connection, self._claim.id, self._claim.attempt),
            )
        except SQLAlchemyError as error:
            logger.warning("cancellation could not be looked up", extra={"error_type": type(error).__name__})
        return self._asked
