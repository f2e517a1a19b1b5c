"""Refused calls in sums: counted in memory, and put on record by a thread, a line a minute for each caller and reason.

A line for each refusal would let a stranger fill the record, and write to the database before they have shown a key. What is lost with
a process is at most a minute's.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from webapp.audit import store
from webapp.audit.model import Act, Actor, ActorKind, Event
from webapp.infra.background import NeededThread
from webapp.infra.postgres import database_errors, deadlines
from webapp.infra.postgres.engine import in_transaction

logger = logging.getLogger(__name__)

#: Seconds between two writings.
WRITE_EVERY = 60.0
#: How long one may take, seconds.
WRITE_BUDGET = 2.0
#: Callers and reasons that are told apart between two writings; the rest is one caller.
MOST_TOLD_APART = 100
#: That caller.
OTHERS = Actor(ActorKind.ADDRESS, "others", "others")


class Refusal(NamedTuple):
    """What is counted together.

    Args:
        actor: who was refused.
        reason: why.
        scope: which scope they lacked; None: a key.
    """

    actor: Actor
    reason: str
    scope: str | None


class Refusals:
    """Counts refused calls.

    Args:
        engine: the database.
        period: seconds between two writings.
    """

    def __init__(self, engine: Engine, period: float = WRITE_EVERY) -> None:
        self._engine = engine
        self._period = period
        self._lock = threading.Lock()
        self._counts: Counter[Refusal] = Counter()
        self._pause = threading.Event()
        self._thread = NeededThread("refusals", self._write_on)

    def note(self, actor: Actor, reason: str, scope: str | None) -> None:
        """Counts a call that was refused; arguments as of `Refusal`."""
        with self._lock:
            self._add(Refusal(replace(actor, request_id=None), reason, scope), 1)
            self._thread.ensure()

    def flush(self) -> bool:
        """Writes what was counted since the last time; True if there was something.

        What cannot be written is counted on.
        """
        with self._lock:
            counts, self._counts = self._counts, Counter()
        if not counts:
            return False
        try:
            with deadlines.within(WRITE_BUDGET):
                in_transaction(self._engine, partial(_write, counts=counts))
        except SQLAlchemyError as error:
            logger.warning("refused calls could not be recorded", extra=database_errors.fields_of(error))
            with self._lock:
                for refusal, calls in counts.items():
                    self._add(refusal, calls)
        return True

    def _add(self, refusal: Refusal, calls: int) -> None:
        if refusal not in self._counts and len(self._counts) >= MOST_TOLD_APART:
            refusal = refusal._replace(actor=OTHERS)
        self._counts[refusal] += calls

    def _write_on(self) -> None:
        while True:
            self._pause.wait(self._period)
            self.flush()


def _write(connection: Connection, *, counts: Mapping[Refusal, int]) -> None:
    for refusal, calls in counts.items():
        details = {"calls": calls} | ({} if refusal.scope is None else {"scope": refusal.scope})
        act = Act(Event.CALL_REFUSED, changed=0, reason=refusal.reason, details=details)
        store.add(connection, act, refusal.actor, success=False)
