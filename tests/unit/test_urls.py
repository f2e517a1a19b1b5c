from __future__ import annotations

from ipaddress import ip_address

import pytest

from webapp.outbound.urls import Endpoint, Rules, TargetRefused, read_url
from webapp.settings import Settings
from webapp.settings.targets import read_targets

PUBLIC = Rules(frozenset({80, 443}))


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("https://example.org", Endpoint("https", "example.org", 443, "/")),
        ("HTTPS://Example.ORG./a/b?c=d#e", Endpoint("https", "example.org", 443, "/a/b?c=d")),
        ("http://example.org:443/", Endpoint("http", "example.org", 443, "/")),
        ("http://example.org:/", Endpoint("http", "example.org", 80, "/")),
        ("http://example.org?q", Endpoint("http", "example.org", 80, "/?q")),
        ("http://8.8.8.8/", Endpoint("http", "8.8.8.8", 80, "/", ip_address("8.8.8.8"))),
        (
            "http://[2606:4700::0:1]/",
            Endpoint("http", "2606:4700::1", 80, "/", ip_address("2606:4700::1")),
        ),
        ("https://xn--bcher-kva.example/", Endpoint("https", "xn--bcher-kva.example", 443, "/")),
        ("https://under_score.example/", Endpoint("https", "under_score.example", 443, "/")),
    ],
)
def test_a_url_is_read_into_its_parts(url, endpoint):
    assert read_url(url, PUBLIC) == endpoint


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "characters"),
        ("https://" + "a" * 2_048, "characters"),
        (None, "characters"),
        ("example.org", "http://"),
        ("//example.org", "http://"),
        ("file:///etc/passwd", "http://"),
        ("gopher://example.org/", "http://"),
        ("ftp://example.org/", "http://"),
        ("javascript:alert(1)", "http://"),
        ("http:example.org", "host"),
        ("http:///path", "host"),
        ("http://", "host"),
        ("http://.", "host"),
        ("http://a..b/", "host"),
        ("http://-a.example/", "host"),
        ("http://*.example/", "host"),
        ("http://user@example.org/", "user"),
        ("http://user:pw@example.org/", "user"),
        ("http://example.org@127.0.0.1/", "user"),
        ("http://127.0.0.1#@example.org/", "loopback"),
        ("http://example.org:99999/", "port"),
        ("http://example.org:x/", "port"),
        ("http://example.org:0/", "port 0 is not allowed"),
        ("http://example.org:22/", "port 22 is not allowed"),
        ("http://example.org:6379/", "port 6379 is not allowed"),
        (" http://example.org/", "printable"),
        ("http://example.org/ x", "printable"),
        ("http://example.org/\r\nHost: internal", "printable"),
        ("http://exam\tple.org/", "printable"),
        ("http://127.0.0.1\\@example.org/", "backslashes"),
        ("http:\\\\127.0.0.1/", "backslashes"),
        ("http://例え.jp/", "printable"),
        ("http://①②⑦.⓪.⓪.①/", "printable"),
        ("http://127。0。0。1/", "printable"),
        ("http://١٢٧.0.0.1/", "printable"),
        ("http://127.0.0.1%00.example.org/", "host"),
        ("http://%31%32%37.0.0.1/", "four decimal"),
        ("http://2130706433/", "four decimal"),
        ("http://0x7f000001/", "four decimal"),
        ("http://0x7f.0.0.1/", "four decimal"),
        ("http://0x7f.1/", "four decimal"),
        ("http://017700000001/", "four decimal"),
        ("http://0177.0.0.1/", "four decimal"),
        ("http://127.1/", "four decimal"),
        ("http://127.0.1/", "four decimal"),
        ("http://127.0.0.1.1/", "four decimal"),
        ("http://127.0.0.0x1/", "four decimal"),
        ("http://0/", "four decimal"),
        ("http://0x/", "four decimal"),
        ("http://256.0.0.1/", "four decimal"),
        ("http://a.1/", "four decimal"),
        ("http://0.0.0.0/", "this network"),
        ("http://127.0.0.1/", "loopback"),
        ("http://127.0.0.1./", "loopback"),
        ("http://127.8.8.8/", "loopback"),
        ("http://10.0.0.1/", "private"),
        ("http://169.254.169.254/latest/meta-data/", "link-local"),
        ("http://100.64.0.1/", "CGNAT"),
        ("http://[::]/", "unspecified"),
        ("http://[::1]/", "loopback"),
        ("http://[0:0:0:0:0:0:0:1]/", "loopback"),
        ("http://[::ffff:127.0.0.1]/", "loopback"),
        ("http://[::ffff:7f00:1]/", "loopback"),
        ("http://[::127.0.0.1]/", "IPv4-compatible"),
        ("http://[64:ff9b::7f00:1]/", "loopback"),
        ("http://[2002:7f00:1::]/", "6to4"),
        ("http://[2001::1]/", "Teredo"),
        ("http://[fec0::1]/", "site-local"),
        ("http://[fe80::1]/", "link-local"),
        ("http://[fe80::1%25eth0]/", "interface"),
        ("http://[fd00:ec2::254]/", "private"),
        ("http://[127.0.0.1]/", "IPv6|host"),
        ("http://[::1/", "host"),
        ("http://[v1.a]/", "IPv6"),
        ("http://localhost/", "loopback"),
        ("http://LOCALHOST./", "loopback"),
        ("http://a.localhost/", "loopback"),
    ],
)
def test_a_url_that_is_unusual_or_internal_is_refused_before_anything_is_resolved(url, says):
    with pytest.raises(TargetRefused, match=says):
        read_url(url, PUBLIC)


def test_a_refusal_repeats_no_secret():
    with pytest.raises(TargetRefused) as refused:
        read_url("http://hidden:hidden@127.0.0.1/hidden?hidden=1#hidden", PUBLIC)
    assert "hidden" not in str(refused.value)
    with pytest.raises(TargetRefused) as refused:
        read_url("http://127.0.0.1/hidden?hidden=1", PUBLIC)
    assert "hidden" not in str(refused.value)


@pytest.mark.parametrize(
    ("targets", "url"),
    [
        ("127.0.0.1:9000", "http://127.0.0.1:9000/"),
        ("127.0.0.0/8", "http://127.0.0.1/"),
        ("localhost:9000", "http://localhost:9000/"),
        ("127.0.0.0/8", "http://localhost/"),
        ("[::1]:9000", "http://[::1]:9000/"),
        ("billing:9000", "http://billing:9000/"),
        ("10.0.0.0/8:9000", "http://billing:9000/"),
    ],
)
def test_a_target_that_is_allowed_may_be_called(targets, url):
    read_url(url, Rules(frozenset({80, 443}), read_targets(targets)))


@pytest.mark.parametrize(
    ("targets", "url"),
    [
        ("127.0.0.1:9000", "http://127.0.0.1/"),
        ("127.0.0.1:9000", "http://127.0.0.2:9000/"),
        ("127.0.0.1:9000", "http://127.0.0.1:9001/"),
        ("10.0.0.0/8:9000", "http://[::ffff:10.0.0.1]:9000/"),
        ("localhost:9000", "http://127.0.0.1:9000/"),
        ("localhost:9000", "http://localhost/"),
        ("billing:9000", "http://other:9000/"),
        ("127.0.0.1", "http://127.0.0.1:22/"),
        ("localhost:9000", "http://a.localhost:9000/"),
    ],
)
def test_an_allowance_reaches_no_further_than_it_says(targets, url):
    with pytest.raises(TargetRefused):
        read_url(url, Rules(frozenset({80, 443}), read_targets(targets)))


def test_the_rules_are_those_of_the_settings():
    rules = Rules.of(Settings(http_allowed_ports="443", http_allowed_targets="billing:9000"))
    assert rules == Rules(frozenset({443}), read_targets("billing:9000"))


@pytest.mark.parametrize(
    ("endpoint", "origin"),
    [
        (Endpoint("https", "a.example", 443, "/"), "https://a.example"),
        (Endpoint("http", "a.example", 443, "/"), "http://a.example:443"),
        (Endpoint("http", "::1", 80, "/"), "http://[::1]"),
    ],
)
def test_an_origin_names_a_port_that_is_not_the_schemes_own(endpoint, origin):
    assert endpoint.origin == origin
