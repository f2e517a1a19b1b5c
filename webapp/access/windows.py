"""How much was used within any minute: a sliding window of whole seconds. The decision is pure; Redis makes the same one in one exchange.

What was used in a second counts until the minute behind that second's end is over, so no minute ever has more than it may, wherever it
begins. Where Redis is away each process decides for itself.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from math import ceil
from typing import Any, NamedTuple

from redis import Redis
from redis.exceptions import RedisError

from webapp.infra.broker import redis_keys

logger = logging.getLogger(__name__)

#: The length of the window, seconds.
WINDOW = 60
#: How long one exchange with Redis may take, seconds.
TIMEOUT = 0.1
#: How long it is not asked after a failure, seconds.
PAUSE = 1.0
#: Most windows that a process keeps while Redis is away, and most refusals; beyond them the one that was used longest ago goes.
MOST_KEPT = 10_000


class Verdict(NamedTuple):
    """Whether more may be used.

    Args:
        used: what was used within the window, this included where it was taken.
        wait: until it would be taken, seconds; 0: it was; None: never, it is more than a whole window has.
    """

    used: int
    wait: int | None

    @property
    def is_taken(self) -> bool:
        """True if it may be used, and counts from now on."""
        return self.wait == 0


def decided(spent: Mapping[int, int], now: int, cost: int, most: int) -> Verdict:
    """Whether `cost` more may be used.

    Args:
        spent: what was used in which second; those before the window count for nothing.
        now: the second that it is.
        most: the most that may be used within the window.

    Example:
        >>> decided({100: 56}, 101, 7, 60), decided({100: 56}, 161, 7, 60)
        (Verdict(used=56, wait=60), Verdict(used=7, wait=0))
    """
    counted = {second: number for second, number in spent.items() if second >= now - WINDOW}
    used = sum(counted.values())
    if used + cost <= most:
        return Verdict(used + cost, 0)
    free = most - used
    for second in sorted(counted):
        free += counted[second]
        if free >= cost:
            return Verdict(used, second + WINDOW + 1 - now)
    return Verdict(used, None)


#: The same with Redis' clock. A key of another type, and fields that are no second or no number, are removed: others may write there.
_SCRIPT = """
local cost, most, window = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local now = tonumber(ARGV[4]) or tonumber(redis.call('TIME')[1])
local used, spent, this = 0, {}, 0
local found = redis.pcall('HGETALL', KEYS[1])
if found['err'] then
    redis.call('DEL', KEYS[1])
    found = {}
end
for i = 1, #found, 2 do
    local second, number = tonumber(found[i]), tonumber(found[i + 1])
    if not second or not number or number < 0 or second < now - window or second > now + window then
        redis.call('HDEL', KEYS[1], found[i])
    else
        used = used + number
        if second == now then this = number end
        spent[#spent + 1] = {second, number}
    end
end
if used + cost <= most then
    redis.call('HSET', KEYS[1], now, this + cost)
    redis.call('EXPIRE', KEYS[1], window + 1)
    return {used + cost, 0}
end
table.sort(spent, function(one, other) return one[1] < other[1] end)
local free = most - used
for _, one in ipairs(spent) do
    free = free + one[2]
    if free >= cost then return {used, one[1] + window + 1 - now} end
end
return {used, -1}
"""


class Refused(NamedTuple):
    """That so much was refused, which says the same of as much and more until it is over: what was used is used less only by time.

    Args:
        until: up to when it is certain, seconds of the epoch.
        cost: what was asked for.
        most: by which limit.
        used: as in the verdict.
    """

    until: float
    cost: int
    most: int
    used: int

    @classmethod
    def by(cls, verdict: Verdict, now: float, cost: int, most: int) -> Refused | None:
        """What a verdict says of those that follow; None: nothing.

        Example:
            >>> Refused.by(Verdict(60, 20), 100.0, 7, 60), Refused.by(Verdict(60, 1), 100.0, 7, 60)
            (Refused(until=119.0, cost=7, most=60, used=60), None)
        """
        # Whole seconds of Redis' clock: of the last one it is not known how much has passed.
        if verdict.wait is None or verdict.wait <= 1:
            return None
        return cls(now + verdict.wait - 1, cost, most, verdict.used)

    def says(self, now: float, cost: int, most: int) -> Verdict | None:
        """The verdict on as much or more, by the same limit; None: it does not say.

        Example:
            >>> refused = Refused(until=119.0, cost=7, most=60, used=60)
            >>> refused.says(110.5, 8, 60), refused.says(110.5, 6, 60), refused.says(119.0, 8, 60), refused.says(110.5, 8, 90)
            (Verdict(used=60, wait=10), None, None, None)
        """
        if cost < self.cost or most != self.most or not self.until - WINDOW <= now < self.until:
            return None
        return Verdict(self.used, ceil(self.until + 1 - now))


class Windows:
    """Counts what keys use, for all processes together; what was refused is refused again without asking.

    Args:
        redis: where it is counted.
        clock: seconds of the epoch, for while Redis is away.
    """

    def __init__(self, redis: Redis, clock: Callable[[], float] = time.time) -> None:
        self._script = redis.register_script(_SCRIPT)
        self._clock = clock
        self._asks_again_at = float("-inf")
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, dict[int, int]] = OrderedDict()
        self._refused: OrderedDict[str, Refused] = OrderedDict()

    def spend(self, name: str, cost: int, most: int, *, now: int | None = None) -> Verdict:
        """Uses something, if it may be.

        Args:
            name: of the window.
            now: the second that it is, for a test; None: Redis' own.
        """
        refused = self._refused.get(name) if now is None else None
        if refused is not None and (verdict := refused.says(self._clock(), cost, most)) is not None:
            return verdict
        if self._clock() >= self._asks_again_at:
            try:
                return self._noted(name, cost, most, self._asked(name, cost, most, now))
            except RedisError as error:
                self._asks_again_at = self._clock() + PAUSE
                logger.warning(
                    "quotas are counted by each process alone", extra={"error_type": type(error).__name__}
                )
        return self._alone(name, cost, most)

    def _asked(self, name: str, cost: int, most: int, now: int | None) -> Verdict:
        key = redis_keys.key(f"{redis_keys.LIMITS}:{name}")
        answer: Any = self._script(keys=[key], args=[cost, most, WINDOW, "" if now is None else now])
        used, wait = (int(value) for value in answer)
        return Verdict(used, None if wait < 0 else wait)

    def _noted(self, name: str, cost: int, most: int, verdict: Verdict) -> Verdict:
        """The verdict, of which is kept what it says of those that follow."""
        refused = Refused.by(verdict, self._clock(), cost, most)
        with self._lock:
            self._refused.pop(name, None)
            if refused is not None:
                self._refused[name] = refused
                if len(self._refused) > MOST_KEPT:
                    self._refused.popitem(last=False)
        return verdict

    def _alone(self, name: str, cost: int, most: int) -> Verdict:
        now = int(self._clock())
        with self._lock:
            spent = self._kept.pop(name, {})
            verdict = decided(spent, now, cost, most)
            self._kept[name] = {second: number for second, number in spent.items() if second >= now - WINDOW}
            if verdict.is_taken:
                self._kept[name][now] = self._kept[name].get(now, 0) + cost
            if len(self._kept) > MOST_KEPT:
                self._kept.popitem(last=False)
        return verdict
