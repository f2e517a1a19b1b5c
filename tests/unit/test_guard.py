from __future__ import annotations

import pytest

from webapp.api.guard import foreign_origin, is_served, name_of
from webapp.settings import Settings
from webapp.settings.group import LOOPBACK

NAMED = ("api.example.com", ".svc.local")
EVERYWHERE = "0.0.0.0"  # noqa: S104 - nothing is bound here


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("localhost:8000", "localhost"),
        ("API.Example.COM.", "api.example.com"),
        ("[::1]:8000", "::1"),
        ("127.0.0.1", "127.0.0.1"),
        ("", None),
        ("a b", None),
        ("evil.example/x", None),
        ("user@host", None),
        ("host:port", None),
        ("::1", None),
        ("localhost, evil.example", None),
    ],
)
def test_a_host_header_has_one_name(header, name):
    assert name_of(header) == name


@pytest.mark.parametrize(
    ("host", "hosts", "probed", "served"),
    [
        ("localhost:8000", LOOPBACK, False, True),
        ("127.0.0.1:9", LOOPBACK, False, True),
        ("[::1]", LOOPBACK, False, True),
        ("evil.example", LOOPBACK, False, False),
        ("evil.example", LOOPBACK, True, False),
        ("localhost.evil.example", LOOPBACK, False, False),
        ("10.1.2.3", LOOPBACK, True, False),
        ("api.example.com", NAMED, False, True),
        ("djps.svc.local:80", NAMED, False, True),
        ("svc.local", NAMED, False, False),
        ("localhost", NAMED, False, False),
        # A probe asks by the pod's address.
        ("10.1.2.3:8000", NAMED, True, True),
        ("[fd00::5]:8000", NAMED, True, True),
        ("10.1.2.3:8000", NAMED, False, False),
        ("evil.example", NAMED, True, False),
    ],
)
def test_a_request_is_for_a_host_that_is_served(host, hosts, probed, served):
    assert is_served(host, hosts, probed=probed) is served


@pytest.mark.parametrize(
    ("site", "origin", "foreign"),
    [
        (None, None, False),
        ("same-origin", "http://else.example", False),
        ("none", None, False),
        ("cross-site", None, True),
        ("cross-site", "http://api.example.com:8000", True),
        ("same-site", None, True),
        (None, "http://api.example.com:8000", False),
        (None, "http://API.example.com:8000", False),
        # A proxy has put its own name into Host.
        (None, "https://api.example.com", False),
        (None, "http://evil.example", True),
        (None, "http://localhost:3000", True),
        (None, "null", True),
        (None, "http://[", True),
        (None, "", True),
    ],
)
def test_what_a_page_of_another_site_sends_is_known_as_such(site, origin, foreign):
    found = foreign_origin(site, origin, "api.example.com:8000", (*NAMED, "localhost"))
    assert (found is not None) is foreign


def test_without_a_host_no_origin_is_this_one():
    assert foreign_origin(None, "null", "", ())


@pytest.mark.parametrize(
    ("changes", "served"),
    [
        ({}, LOOPBACK),
        ({"api_host": "::1"}, LOOPBACK),
        ({"api_host": EVERYWHERE}, ()),
        ({"trusted_proxies": 1}, ()),
        ({"trusted_hosts": "*"}, ()),
        ({"trusted_hosts": "API.example.com, [::1]", "api_host": EVERYWHERE}, ("api.example.com", "::1")),
    ],
)
def test_who_is_served_follows_from_where_it_listens(changes, served):
    assert Settings(**changes).hosts_served == served


@pytest.mark.parametrize("value", ["http://x", "x:80", "a b", "x/y"])
def test_a_wrong_name_is_refused_at_start(value):
    with pytest.raises(ValueError, match="must be host names or addresses without a port"):
        Settings(trusted_hosts=value)
