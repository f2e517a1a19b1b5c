"""Failed attempts at a key: so many of an address are looked at in a minute, and further ones are refused unseen.

They are counted in the memory of each process, so an address has as many in each. A key that a process knows is let in without a
look here: those who share an address with one that tries keys go on working.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv6Address, ip_address
from math import ceil
from typing import NamedTuple

from webapp.access.errors import NoGoodKey, TooManyAttempts
from webapp.infra.background import Clock

#: Attempts of one address that are looked at in a window.
MOST_ATTEMPTS = 20
#: Length of a window, seconds; it begins with an address's first failed attempt.
WINDOW = 60.0
#: Most addresses whose attempts are kept, some 3 MB; beyond them the window that began first goes.
MOST_ADDRESSES = 10_000
#: Bits of an IPv6 address that tell one site from another: a client has all addresses that begin with them.
SITE_BITS = 64


class Window(NamedTuple):
    """Attempts of one address.

    Args:
        began: when the first of them was made, seconds of a clock that only grows.
        number: how many were made since.
    """

    began: float
    number: int


def counted(known: Window | None, now: float) -> Window:
    """The window with one attempt more; a new one when the last is over.

    Example:
        >>> counted(Window(0.0, 7), 59.0), counted(Window(0.0, 7), 60.0)
        (Window(began=0.0, number=8), Window(began=60.0, number=1))
    """
    if known is None or now >= known.began + WINDOW:
        return Window(now, 1)
    return Window(known.began, known.number + 1)


def wait_of(known: Window | None, now: float) -> float:
    """How long until another attempt is looked at, seconds; 0: it is now.

    Example:
        >>> wait_of(Window(0.0, 19), 15.0), wait_of(Window(0.0, 20), 15.0)
        (0.0, 45.0)
    """
    if known is None or known.number < MOST_ATTEMPTS:
        return 0.0
    return max(0.0, known.began + WINDOW - now)


def site_of(address: str | None) -> str:
    """What counts as one address: an IPv4 address, also in IPv6's notation, or the network of an IPv6 address.

    Example:
        >>> site_of("2001:db8::1") == site_of("2001:db8::ffff:2"), site_of("::ffff:10.1.2.3")
        (True, '10.1.2.3')
    """
    text = (address or "").partition("%")[0]
    try:
        found = ip_address(text)
    except ValueError:
        return text
    if not isinstance(found, IPv6Address):
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return f"{int(found) >> (128 - SITE_BITS):x}"


class FailedAttempts:
    """Counts failed attempts of addresses.

    Args:
        clock: seconds that only grow.
    """

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        #: The window that began first comes first.
        self._windows: OrderedDict[str, Window] = OrderedDict()

    def forget(self) -> None:
        """Has every address begin anew."""
        with self._lock:
            self._windows.clear()

    @contextmanager
    def attempt(self, address: str | None) -> Iterator[None]:
        """What is done inside is an attempt; it counts when it ends in `NoGoodKey`.

        It is counted before it is made, so that many at a time are no more than one after the other.

        Raises:
            TooManyAttempts: the address has made as many as are looked at.
        """
        site = site_of(address)
        began = self._begin(site)
        try:
            yield
        except NoGoodKey:
            raise
        except BaseException:
            self._take_back(site, began)
            raise
        self._take_back(site, began)

    def _begin(self, site: str) -> float:
        with self._lock:
            now, known = self._clock(), self._windows.get(site)
            wait = wait_of(known, now)
            if wait > 0.0:
                raise TooManyAttempts(MOST_ATTEMPTS, WINDOW, max(1, ceil(wait)))
            window = self._windows[site] = counted(known, now)
            if window.number == 1:
                self._windows.move_to_end(site)
                if len(self._windows) > MOST_ADDRESSES:
                    self._windows.popitem(last=False)
            return window.began

    def _take_back(self, site: str, began: float) -> None:
        with self._lock:
            known = self._windows.get(site)
            if known is None or known.began != began:
                return
            if known.number > 1:
                self._windows[site] = Window(began, known.number - 1)
            else:
                del self._windows[site]
