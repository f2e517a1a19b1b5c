"""Ports of this machine: is one free, and which one is?"""

from __future__ import annotations

import socket

LOOPBACK = "127.0.0.1"


class PortInUse(Exception):
    """Something listens on a port that we need."""

    def __init__(self, port: int, setting: str) -> None:
        super().__init__(f"port {port} is in use; stop what listens there or set {setting} to another port")


def require_free(port: int, setting: str) -> None:
    """Makes sure that a port can be listened on.

    Args:
        setting: the variable that names the port.

    Raises:
        PortInUse: something listens there.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            raise PortInUse(port, setting) from None


def is_free(port: int) -> bool:
    """Tells whether a port can be listened on."""
    try:
        require_free(port, "")
    except PortInUse:
        return False
    return True


def free() -> int:
    """A port that nothing listens on right now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port
