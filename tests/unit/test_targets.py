from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from webapp.settings.targets import Target, read_ports, read_target, read_targets


@pytest.mark.parametrize(
    ("entry", "target"),
    [
        ("billing.internal", Target("billing.internal")),
        (" Billing.Internal:8080 ", Target("billing.internal", 8080)),
        ("localhost:9000", Target("localhost", 9000)),
        ("10.1.0.0/16", Target(ip_network("10.1.0.0/16"))),
        ("10.1.2.3", Target(ip_network("10.1.2.3/32"))),
        ("127.0.0.1:9000", Target(ip_network("127.0.0.1/32"), 9000)),
        ("10.1.0.0/16:9000", Target(ip_network("10.1.0.0/16"), 9000)),
        ("fd00::/8", Target(ip_network("fd00::/8"))),
        ("[fd00::/8]:9000", Target(ip_network("fd00::/8"), 9000)),
        ("[::1]", Target(ip_network("::1/128"))),
    ],
)
def test_a_target_is_a_host_or_a_network_with_or_without_a_port(entry, target):
    assert read_target(entry) == target


@pytest.mark.parametrize(
    "entry",
    [
        "",
        "http://a",
        "a:b",
        "a:0",
        "a:65536",
        "10.0.0.1/8",
        "127.1",
        "[localhost]:80",
        "a b",
        "-a",
        "a..b",
        "a:1:2",
    ],
)
def test_what_is_no_target_is_refused(entry):
    with pytest.raises(ValueError):
        read_target(entry)


def test_a_list_of_targets_may_be_empty():
    assert read_targets("") == ()
    assert read_targets("a, b:1,") == (Target("a"), Target("b", 1))


def test_a_name_and_a_network_never_stand_for_each_other():
    assert read_target("a").names("a", 80)
    assert not read_target("a:1").names("a", 80)
    assert not read_target("a").holds(ip_address("10.0.0.1"), 80)
    assert read_target("10.0.0.0/8").holds(ip_address("10.0.0.1"), 80)
    assert not read_target("10.0.0.0/8:1").holds(ip_address("10.0.0.1"), 80)
    assert not read_target("10.0.0.0/8").holds(ip_address("::1"), 80)


def test_ports_are_read():
    assert read_ports("80, 443") == {80, 443}


@pytest.mark.parametrize("ports", ["", ",", "0", "65536", "http", "80;81", "-1", "٨٠"])
def test_what_is_no_port_is_refused(ports):
    with pytest.raises(ValueError, match="ports from 1 to 65535"):
        read_ports(ports)
