"""Limits that a fault gives to a queue or a task: it insists until each is answered, and knows which of them may be in force at any moment."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import requests

from ops.chaos.pause_faults import QUEUE_PATH
from ops.chaos.stage import Broken, Stage

#: Longest that a change goes on being sent while something is broken, seconds.
PATIENCE = 30.0
#: Longest wait for one answer, seconds: the first limits of a queue are answered a second later.
ANSWERED_WITHIN = 10.0


@dataclass(slots=True)
class _Asked:
    """A concurrency that was asked for, and when it may have been in force; moments are seconds since 1970."""

    concurrency: int | None
    since: float
    until: float = float("inf")


class LimitChanges:
    """Changes the limits of the queue that the load goes to, or of its task.

    Args:
        stage: where the fault plays.
        path: what is limited.
    """

    def __init__(self, stage: Stage, path: str = QUEUE_PATH) -> None:
        self._stage = stage
        self._url = f"{stage.system.url}/{path}"
        self._asked: list[_Asked] = []
        #: Changes that were answered.
        self.answered = 0
        #: From when on there were limits, seconds since 1970.
        self.since = float("inf")

    def put(self, limits: dict[str, Any]) -> None:
        """Gives the queue these limits in the place of those it has.

        Raises:
            Broken: that was not answered.
        """
        self._ask("PUT", limits, limits.get("concurrency"))
        self.since = min(self.since, time.time())

    def remove(self) -> None:
        """Takes all limits away.

        Raises:
            Broken: that was not answered.
        """
        self._ask("DELETE", None, None)

    def _ask(self, method: str, limits: dict[str, Any] | None, concurrency: int | None) -> None:
        asked = _Asked(concurrency, time.time())
        self._asked.append(asked)
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            with suppress(requests.RequestException):
                answer = requests.request(method, self._url, json=limits, timeout=ANSWERED_WITHIN)
                if answer.ok:
                    for one in self._asked[:-1]:
                        one.until = min(one.until, time.time())
                    self.answered += 1
                    return
            self._stage.hold(0.1)
        raise Broken(f"{method} of limits was not answered")

    def greatest(self, since: float, until: float) -> int | None:
        """The greatest concurrency that may have been in force at some moment of a stretch; None: there may have been no limit."""
        if since < self.since:
            return None
        some = [one.concurrency for one in self._asked if one.since <= until and one.until >= since]
        known = [one for one in some if one is not None]
        return max(known) if len(known) == len(some) and known else None

    @contextmanager
    def limited(self, limits: dict[str, Any]) -> Iterator[None]:
        """The queue has limits for the time of a block."""
        self.put(limits)
        try:
            yield
        finally:
            self.remove()

    @contextmanager
    def changing(self, several: Sequence[dict[str, Any]], pause: float) -> Iterator[None]:
        """One limit after the other is put, for the time of a block; it ends with the last of them.

        Raises:
            Broken: one was not answered.
        """
        over = threading.Event()
        failed: list[Broken] = []

        def change() -> None:
            turn = 0
            while not over.wait(pause) and not failed:
                try:
                    self.put(several[turn % len(several)])
                except Broken as broken:
                    failed.append(broken)
                turn += 1

        thread = threading.Thread(target=change, name="limits", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join(PATIENCE + ANSWERED_WITHIN)
        if failed:
            raise failed[0]
        self.put(several[-1])
