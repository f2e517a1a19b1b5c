"""A port that cannot be listened on is refused with the setting and the reason."""

from __future__ import annotations

import errno
import socket

import pytest

from ops.stack import addresses, ports
from ops.stack.ports import PortInUse, require_free

EVERYWHERE = "0.0.0.0"  # noqa: S104 - it is what the tests are about


def test_a_free_port_is_free():
    port = ports.free()
    assert ports.is_free(port)
    require_free(port, "API_PORT", EVERYWHERE)
    require_free(port, "API_PORT", "localhost")


def test_no_port_is_given_twice_in_a_row(monkeypatch):
    """The kernel may give one again as soon as it is closed."""
    given = iter([5000, 5000, 5000, 5001])

    class Probe(socket.socket):
        def bind(self, address):
            pass

        def getsockname(self):
            return ports.LOOPBACK, next(given)

    monkeypatch.setattr(ports.socket, "socket", Probe)
    assert (ports.free(), ports.free()) == (5000, 5001)


def test_a_taken_port_names_its_setting():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PortInUse, match=rf"port {port} is in use; .* set API_PORT to another port"):
            require_free(port, "API_PORT")
        with pytest.raises(PortInUse, match="is in use"):
            require_free(port, "API_PORT", EVERYWHERE)


def test_an_address_that_this_machine_has_not_names_the_host_setting():
    with pytest.raises(PortInUse, match=r"^API_HOST: this machine has no address '192.0.2.7'$"):
        require_free(ports.free(), "API_PORT", "192.0.2.7")


def test_a_name_that_no_one_knows_names_the_host_setting(monkeypatch):
    def unknown(*_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(PortInUse, match=r"^FLOWER_HOST: this machine has no address 'typo'$"):
        require_free(5555, "FLOWER_PORT", "typo")


def test_a_port_for_root_says_so(monkeypatch):
    def refuse(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", refuse)
    with pytest.raises(PortInUse, match="port 80 is for root alone; set API_PORT to one from 1024 on"):
        require_free(80, "API_PORT")


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "127.0.0.1"),
        (EVERYWHERE, "127.0.0.1"),
        ("::", "127.0.0.1"),
        ("::1", "[::1]"),
        ("h", "h"),
    ],
)
def test_where_what_listens_is_reached(host, url):
    assert addresses.reached(host) == url
