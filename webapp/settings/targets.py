"""Targets of outgoing calls as settings name them: a host or a network, and perhaps a port."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

Address = IPv4Address | IPv6Address

#: `name`, `name:port`, `10.0.0.0/8:port`, `[fd00::/8]:port`, or a bare IPv6 network.
_ENTRY = re.compile(r"(?:\[(?P<bracketed>[^\]]+)\]|(?P<plain>[^:\[\]]+))(?::(?P<port>\d{1,5}))?")
_NAME = re.compile(r"(?=.{1,253}\Z)[a-z0-9_](?:[a-z0-9_-]{0,62})(?:\.[a-z0-9_](?:[a-z0-9_-]{0,62}))*")
_LAST_PORT = 65_535


@dataclass(frozen=True, slots=True)
class Target:
    """One host or network.

    Args:
        host: a name in small letters, or the network.
        port: the only port that is meant; None for every port that is allowed anyway.
    """

    host: str | IPv4Network | IPv6Network
    port: int | None = None

    def names(self, host: str, port: int) -> bool:
        """True if this is the host of that name, at that port."""
        return self.host == host and self.port in (None, port)

    def holds(self, address: Address, port: int) -> bool:
        """True if this is a network with that address, at that port."""
        return not isinstance(self.host, str) and address in self.host and self.port in (None, port)


def read_target(entry: str) -> Target:
    """Reads one entry.

    Raises:
        ValueError: it is neither a host nor a network, or its port is none.

    Example:
        >>> read_target("billing.internal:8080")
        Target(host='billing.internal', port=8080)
    """
    try:
        # An IPv6 network without a port needs no brackets.
        return Target(ip_network(entry.strip()))
    except ValueError:
        pass
    found = _ENTRY.fullmatch(entry.strip().lower())
    if found is None:
        raise ValueError(f"{entry[:80]!r} must be host, host:port, network or network:port")
    port = int(found["port"]) if found["port"] else None
    if port is not None and not 1 <= port <= _LAST_PORT:
        raise ValueError(f"the port of {entry[:80]!r} must be 1 to {_LAST_PORT}")
    host = found["bracketed"] or found["plain"]
    try:
        return Target(ip_network(host), port)
    except ValueError:
        if found["bracketed"] or "/" in host or not _NAME.fullmatch(host) or host[-1].isdigit():
            raise ValueError(f"{entry[:80]!r} must be a host or a network (its host bits 0)") from None
        return Target(host, port)


def read_targets(entries: str) -> tuple[Target, ...]:
    """Reads a comma-separated list of entries.

    Raises:
        ValueError: one of them cannot be read; see `read_target`.
    """
    return tuple(read_target(entry) for entry in entries.split(",") if entry.strip())


def read_ports(ports: str) -> frozenset[int]:
    """Reads a comma-separated list of ports.

    Raises:
        ValueError: there is none, or one is no number from 1 to 65535.
    """
    read = [one.strip() for one in ports.split(",") if one.strip()]
    if not read or not all(one.isascii() and one.isdigit() and 1 <= int(one) <= _LAST_PORT for one in read):
        raise ValueError(f"must be ports from 1 to {_LAST_PORT}, comma-separated")
    return frozenset(int(one) for one in read)
