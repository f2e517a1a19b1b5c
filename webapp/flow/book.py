"""The rule book of a process: the rules in force, read anew when they are older than a moment.

Nothing tells a process of a change, so nothing can be missed: neither a restart nor an empty Redis changes what holds. What is
asked for within the moment costs a look at the clock; a process that asks for nothing reads nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from sqlalchemy import Engine

from webapp.flow import store
from webapp.flow.model import FlowRules
from webapp.infra.postgres.engine import in_one_trip

#: A start goes by rules of this age at most, seconds. What is left of a second is for the start itself, on a busy machine.
LONGEST_AGE = 0.75
#: The same while something is paused or returns: what is resumed starts soon.
LONGEST_AGE_CLOSED = 0.2


class FlowBook:
    """Knows the rules in force.

    Args:
        engine: the database.
        clock: seconds that only grow.
    """

    def __init__(self, engine: Engine, clock: Callable[[], float] = time.monotonic) -> None:
        self._engine = engine
        self._clock = clock
        self._lock = threading.Lock()
        self._rules = FlowRules()
        self._good_until = -1.0

    def rules(self) -> FlowRules:
        """The rules in force.

        Raises:
            DBAPIError: they are too old, and the database does not answer.
        """
        if self._clock() < self._good_until:
            return self._rules
        with self._lock:
            # The age counts from before the question: what is changed while it is answered may be missing in the answer.
            asked = self._clock()
            if asked >= self._good_until:
                self._rules = rules = in_one_trip(self._engine, store.rules)
                is_quiet = rules.is_open and not rules.returning
                self._good_until = asked + (LONGEST_AGE if is_quiet else LONGEST_AGE_CLOSED)
            return self._rules

    def forget(self) -> None:
        """Has the next question read the rules anew, whatever their age."""
        with self._lock:
            self._good_until = -1.0
