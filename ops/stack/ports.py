"""Ports of this machine: is one free, and which one is?"""

from __future__ import annotations

import errno
import socket
from collections import deque

LOOPBACK = "127.0.0.1"
#: Ports that are not given again, as many as a process may still be about to listen on.
_given: deque[int] = deque(maxlen=1_000)


class PortInUse(Exception):
    """Something listens on a port that we need."""

    def __init__(self, port: int, setting: str, reason: str = "") -> None:
        super().__init__(
            reason or f"port {port} is in use; stop what listens there or set {setting} to another port"
        )


def require_free(port: int, setting: str, host: str = LOOPBACK) -> None:
    """Makes sure that a port can be listened on.

    Args:
        setting: the variable that names the port, such as API_PORT; the address is API_HOST's then.
        host: the address to listen on.

    Raises:
        PortInUse: something listens there, or this user may not, or this machine has no such address.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise PortInUse(port, setting, _why(error, port, setting, host)) from None


def _why(error: OSError, port: int, setting: str, host: str) -> str:
    """A sentence about what keeps a port from being listened on; empty where something else does."""
    if error.errno == errno.EACCES:
        return f"port {port} is for root alone; set {setting} to one from 1024 on"
    if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        return f"{setting.replace('_PORT', '_HOST')}: this machine has no address {host!r}"
    return ""


def is_free(port: int) -> bool:
    """True if a port can be listened on."""
    try:
        require_free(port, "")
    except PortInUse:
        return False
    return True


def free() -> int:
    """A port that nothing listens on right now, and that this process was not given before: it may not be listened on yet."""
    while True:
        with socket.socket() as probe:
            probe.bind((LOOPBACK, 0))
            port: int = probe.getsockname()[1]
        if port not in _given:
            _given.append(port)
            return port
