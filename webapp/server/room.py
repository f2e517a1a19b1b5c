"""Room for bodies: a bounded number of bytes, taken before a body is read and given back once it is answered."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Room(Generic[T]):
    """So many bytes, given out in the order in which they are asked for.

    Args:
        size: how many there are.

    Example:
        >>> room = Room[str](10)
        >>> room.take("a", 8), room.take("b", 8), room.take("c", 1), room.give(8)
        (True, False, False, [('b', 8), ('c', 1)])
    """

    def __init__(self, size: int) -> None:
        self._free = size
        self._waiting: deque[tuple[T, int]] = deque()

    def take(self, owner: T, size: int) -> bool:
        """Takes bytes, or queues for them; True when they are taken."""
        if not self._waiting and size <= self._free:
            self._free -= size
            return True
        self._waiting.append((owner, size))
        return False

    def give(self, size: int) -> list[tuple[T, int]]:
        """Gives bytes back; returns those who waited for them and have got theirs now, and how many."""
        self._free += size
        served = []
        while self._waiting and self._waiting[0][1] <= self._free:
            served.append(self._waiting.popleft())
            self._free -= served[-1][1]
        return served

    def forget(self, owner: T) -> list[tuple[T, int]]:
        """Takes an owner out of the queue; returns those who need not wait behind it any more."""
        self._waiting = deque(one for one in self._waiting if one[0] is not owner)
        return self.give(0)
