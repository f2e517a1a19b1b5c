"""Spreads connections evenly over the worker processes of one gunicorn.

All of them wait on one socket, and the kernel lets any of them take a connection: under a burst one process can take
nearly all. Requests that wait for a job hold their connection for a minute, so its places would be full while others
stand empty. Here a process that is ahead of the others lets them go first.
"""

from __future__ import annotations

import mmap
import struct
import time
from collections.abc import Callable
from typing import Any

#: How many connections a process may be ahead before it lets others go first.
AHEAD = 4
#: How long it lets them, seconds; a connection that none of them takes is its own then.
HEAD_START = 0.002

_NUMBER = struct.Struct("i")
_NONE = -1


class Shares:
    """How many connections each process has, in memory that they share; made before they are forked.

    Args:
        places: most processes at once, those that are just being replaced included.
    """

    def __init__(self, places: int) -> None:
        self._memory = mmap.mmap(-1, _NUMBER.size * places)
        self._places = range(places)
        for place in self._places:
            self.write(place, _NONE)

    def take(self) -> int | None:
        """A place for a new process; None when all are taken."""
        free = next((place for place in self._places if self.read(place) == _NONE), None)
        if free is not None:
            self.write(free, 0)
        return free

    def give_back(self, place: int) -> None:
        """The process of a place has ended."""
        self.write(place, _NONE)

    def read(self, place: int) -> int:
        """The connections of a process."""
        found: int = _NUMBER.unpack_from(self._memory, _NUMBER.size * place)[0]
        return found

    def write(self, place: int, connections: int) -> None:
        """Notes the connections of a process."""
        _NUMBER.pack_into(self._memory, _NUMBER.size * place, connections)

    def is_ahead(self, place: int) -> bool:
        """True if a process has more connections than another one, and not just by a few."""
        others = [self.read(other) for other in self._places if other != place]
        least = min((count for count in others if count != _NONE), default=None)
        return least is not None and self.read(place) > least + AHEAD


def spread(worker: Any, shares: Shares, place: int, connections: Callable[[], int]) -> None:
    """Has a gunicorn worker take its connections evenly with the others.

    Args:
        place: the worker's, of `Shares.take`.
        connections: how many it has right now.
    """
    accept, notify = worker.accept, worker.notify

    def take_in_turn(listener: Any) -> None:
        shares.write(place, connections())
        if shares.is_ahead(place):
            time.sleep(HEAD_START)
        accept(listener)
        shares.write(place, connections())

    def say_so() -> None:
        # gunicorn has this called at least once a second, so what was closed is known as well.
        shares.write(place, connections())
        notify()

    worker.accept, worker.notify = take_in_turn, say_so
