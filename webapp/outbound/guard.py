"""The guard: finds out where a host leads, judges every address, and hands over those that may be connected to.

The caller connects to these addresses and resolves nothing again, so an answer that changes between the
check and the call (DNS rebinding) leads nowhere.
"""

from __future__ import annotations

import queue
import socket
import threading
from collections.abc import Callable, Sequence
from ipaddress import ip_address

from webapp.outbound.urls import Endpoint, Rules, TargetRefused
from webapp.settings.targets import Address

#: Addresses of a host that are tried.
MOST_ADDRESSES = 4
#: Look-ups of this process that may be under way; one that hangs is given up and ends in its own time.
MOST_LOOKUPS = 16

#: Finds all addresses of a host, as text.
Resolver = Callable[[str], Sequence[str]]

_lookups = threading.BoundedSemaphore(MOST_LOOKUPS)


class NotResolved(Exception):
    """A host's addresses could not be found, now."""


def resolve(host: str) -> list[str]:
    """All addresses of a host, by the system's resolver.

    Raises:
        OSError: there are none, or no server answers.
    """
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class Guard:
    """Decides where calls may go.

    Args:
        rules: the ports and internal targets that are allowed.
        resolver: finds a host's addresses; the system's when not given.
    """

    def __init__(self, rules: Rules, resolver: Resolver = resolve) -> None:
        self.rules = rules
        self._resolver = resolver

    def addresses(self, endpoint: Endpoint, timeout: float) -> list[Address]:
        """The addresses that a call to this endpoint may connect to, in the resolver's order.

        Args:
            timeout: seconds the resolver has.

        Raises:
            TargetRefused: at least one of the host's addresses must not be called, so none is.
            NotResolved: the host has no address, or the resolver took too long.
        """
        found = [endpoint.address] if endpoint.address else self._look_up(endpoint.host, timeout)
        for address in found:
            reason = self.rules.why_refused(endpoint.host, address, endpoint.port)
            if reason is not None:
                raise TargetRefused(f"{endpoint.host} must not be called: its address {address} is {reason}")
            # A port that only a network has could not be judged before its address was known.
            if not self.rules.has_port(endpoint.host, address, endpoint.port):
                raise TargetRefused(f"port {endpoint.port} of {address} is not allowed (HTTP_ALLOWED_PORTS)")
        return found[:MOST_ADDRESSES]

    def _look_up(self, host: str, timeout: float) -> list[Address]:
        """Asks the resolver, in a thread: `getaddrinfo` has no timeout of its own."""
        slots = _lookups
        if not slots.acquire(blocking=False):
            raise NotResolved(f"{host}: too many look-ups are under way")
        answer: queue.SimpleQueue[Sequence[str] | Exception] = queue.SimpleQueue()

        def ask() -> None:
            try:
                answer.put(self._resolver(host))
            except Exception as error:  # noqa: BLE001 - it is raised where it was waited for
                answer.put(error)
            finally:
                slots.release()

        try:
            threading.Thread(target=ask, name="resolver", daemon=True).start()
        except RuntimeError as error:
            slots.release()
            raise NotResolved(f"{host}: the system gives no thread for a look-up") from error
        try:
            found = answer.get(timeout=max(0.0, timeout))
        except queue.Empty:
            raise NotResolved(f"{host} was not resolved within {timeout:.3g} s") from None
        if isinstance(found, Exception):
            raise NotResolved(f"{host} could not be resolved ({type(found).__name__}: {found})")
        if not found:
            raise NotResolved(f"{host} has no address")
        return [ip_address(one) for one in found]
