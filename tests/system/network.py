"""Hosts for a test: network namespaces on a bridge, each with an address and a host name of its own."""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self, TextIO

from ops.stack import debian

#: The network of the hosts; it exists in the namespaces only.
SUBNET = "10.213.77"
_CLONE_NEWNET, _CLONE_NEWUTS = 0x40000000, 0x04000000
_CAP_NET_ADMIN, _CAP_SYS_ADMIN = 12, 21
_libc = ctypes.CDLL(None, use_errno=True)


def may_make_hosts() -> bool:
    """True if this process may make network namespaces: root may, unless a container took these rights away."""
    status = Path("/proc/self/status").read_text()
    rights = int(next(line for line in status.splitlines() if line.startswith("CapEff")).split()[1], 16)
    return all(rights >> number & 1 for number in (_CAP_NET_ADMIN, _CAP_SYS_ADMIN))


def _checked(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


class Network:
    """A switch and some hosts, for the time of a `with` block; the machine's own network is not touched.

    Args:
        hosts: their names; the first has the address SUBNET.1, and so on.
    """

    def __init__(self, *hosts: str) -> None:
        self._ip = str(debian.program("ip", "iproute2"))
        self._mark = f"djps-{os.getpid()}"
        self.addresses = {name: f"{SUBNET}.{number}" for number, name in enumerate(hosts, 1)}

    def _run(self, *words: str) -> None:
        done = subprocess.run([self._ip, *words], capture_output=True, text=True, timeout=20, check=False)
        assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr.strip()}"

    def _space(self, host: str) -> str:
        return f"{self._mark}-{host}"

    def __enter__(self) -> Self:
        try:
            switch = self._space("switch")
            self._run("netns", "add", switch)
            self._run("-n", switch, "link", "add", "bridge", "type", "bridge")
            self._run("-n", switch, "link", "set", "bridge", "up")
            for number, (host, address) in enumerate(self.addresses.items()):
                space, port = self._space(host), f"port{number}"
                self._run("netns", "add", space)
                self._run("-n", switch, "link", "add", port, "type", "veth",
                          "peer", "name", "eth0", "netns", space)  # fmt: skip
                self._run("-n", switch, "link", "set", port, "master", "bridge", "up")
                self._run("-n", space, "address", "add", f"{address}/24", "dev", "eth0")
                self._run("-n", space, "link", "set", "lo", "up")
                self._run("-n", space, "link", "set", "eth0", "up")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for host in ("switch", *self.addresses):
            # One that was never made is not there to be deleted; the rest must go all the same.
            subprocess.run(
                [self._ip, "netns", "delete", self._space(host)],
                capture_output=True,
                timeout=20,
                check=False,
            )

    def _port(self, host: str, state: str) -> None:
        number = list(self.addresses).index(host)
        self._run("-n", self._space("switch"), "link", "set", f"port{number}", state)

    def cut_off(self, host: str) -> None:
        """Pulls the host's cable at the switch: packets go nowhere, and no connection is told."""
        self._port(host, "down")

    def heal(self, host: str) -> None:
        """Puts the cable back."""
        self._port(host, "up")

    def become(self, host: str) -> None:
        """Moves the calling process to a host, and gives it the host's name; for a child before it executes."""
        with self._handle(host) as there:
            _checked(_libc.setns(there.fileno(), _CLONE_NEWNET))
        _checked(_libc.unshare(_CLONE_NEWUTS))
        socket.sethostname(host)

    @contextmanager
    def on(self, host: str) -> Iterator[None]:
        """Moves this thread to a host: what it connects within the block is connected from there."""
        with Path("/proc/thread-self/ns/net").open() as here, self._handle(host) as there:
            _checked(_libc.setns(there.fileno(), _CLONE_NEWNET))
            try:
                yield
            finally:
                _checked(_libc.setns(here.fileno(), _CLONE_NEWNET))

    def _handle(self, host: str) -> TextIO:
        return Path(f"/var/run/netns/{self._space(host)}").open()
