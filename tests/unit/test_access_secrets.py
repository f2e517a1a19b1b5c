"""The text of keys, and from when and where they may be shown."""

from __future__ import annotations

import re
from ipaddress import ip_network

import pytest

from webapp.access.errors import NoGoodKey, NotFromHere
from webapp.access.model import Caller, LiveKey, Mode, Scope, is_local, is_within, mode_of
from webapp.access.secret import checked, checksum, hash_of, hint_of, new_key, sent_in
from webapp.flow.reach import EVERYTHING
from webapp.settings import Settings, SettingsError

KEY = "djps_k_" + "0" * 40 + "3i2RuQ"


def test_a_new_key_has_the_form_of_one_and_no_two_are_the_same():
    made = {new_key() for _ in range(200)}
    assert len(made) == 200
    for key in made:
        assert re.fullmatch(r"djps_k_[0-9A-Za-z]{46}", key)
        assert checked(key) == key
        assert len(hash_of(key)) == 32
        assert key.endswith(hint_of(key))


def test_a_checksum_stays_as_it_is():
    # Keys of today must be good tomorrow.
    assert checked(KEY) == KEY
    assert checksum("djps_k_" + "z" * 40) == "4eJucH"


@pytest.mark.parametrize(
    "given",
    [
        "",
        "djps_k_",
        KEY[:-1],
        KEY + "0",
        KEY.upper(),
        KEY.replace("_k_", "_s_"),
        KEY[:-1] + "é",
        KEY + "\n",
        " " + KEY,
        "sk_live_" + KEY,
    ],
)
def test_what_has_not_the_form_of_a_key_is_none(given):
    with pytest.raises(NoGoodKey, match="the key must be djps_k_ and 46 letters and digits"):
        checked(given)


def test_a_key_that_was_mistyped_is_told_from_one_that_is_unknown_and_is_not_repeated():
    for place in range(7, len(KEY)):
        typed = KEY[:place] + ("a" if KEY[place] != "a" else "b") + KEY[place + 1 :]
        with pytest.raises(NoGoodKey, match="its checksum is wrong") as refused:
            checked(typed)
        assert typed not in str(refused.value)


@pytest.mark.parametrize(
    ("header", "sent"),
    [(f"Bearer {KEY}", KEY), (f"bearer {KEY}", KEY), (f"BEARER  {KEY} ", KEY), ("Bearer x", "x")],
)
def test_a_key_is_sent_as_a_bearer(header, sent):
    assert sent_in(header) == sent


@pytest.mark.parametrize("header", ["", KEY, "Bearer", f"Basic {KEY}", f"Token {KEY}", "Bearer " + "0" * 200])
def test_a_header_of_another_form_has_no_key(header):
    with pytest.raises(NoGoodKey, match="Bearer djps_k_"):
        sent_in(header)


def key(*networks, expires_at=None):
    caller = Caller(frozenset({Scope.JOBS_READ}), EVERYTHING, key=7, name="dashboard", expires_at=expires_at)
    return LiveKey(caller, tuple(map(ip_network, networks)))


@pytest.mark.parametrize(
    ("live", "now", "address"),
    [
        (key(), 5.0, None),
        (key(expires_at=5.1), 5.0, "10.0.0.1"),
        (key("10.0.0.0/8"), 5.0, "10.255.255.255"),
        (key("192.0.2.0/24", "10.0.0.0/8"), 5.0, "10.0.0.1"),
        (key("10.0.0.0/8"), 5.0, "::ffff:10.0.0.1"),
        (key("fd00::/8"), 5.0, "fd00::1"),
        (key("fe80::/10"), 5.0, "fe80::1%eth0"),
    ],
)
def test_a_key_may_be_shown(live, now, address):
    live.check(now, address)


@pytest.mark.parametrize(
    ("live", "now", "address", "error", "sentence"),
    [
        (key(expires_at=5.0), 5.0, "10.0.0.1", NoGoodKey, "the key 'dashboard' has expired"),
        (key("10.0.0.0/8"), 5.0, "11.0.0.1", NotFromHere, "may not be used from 11.0.0.1"),
        (key("10.0.0.0/8"), 5.0, "::1", NotFromHere, "may not be used from ::1"),
        (key("10.0.0.0/8"), 5.0, None, NotFromHere, "may not be used from there"),
        (key("10.0.0.0/8"), 5.0, "unix", NotFromHere, "may not be used from unix"),
        # What it lacks is said of a key that is good, and of no other.
        (key("10.0.0.0/8", expires_at=1.0), 5.0, "11.0.0.1", NoGoodKey, "has expired"),
    ],
)
def test_a_key_may_not_be_shown(live, now, address, error, sentence):
    with pytest.raises(error, match=sentence):
        live.check(now, address)


def test_an_address_is_in_a_network_of_its_own_kind():
    assert not is_within("::a00:1", [ip_network("10.0.0.0/8")])
    assert not is_within("10.0.0.1", [])


@pytest.mark.parametrize(
    ("api_auth", "is_loopback", "mode"),
    [
        ("auto", True, Mode.LOOPBACK),
        ("auto", False, Mode.KEYS),
        ("keys", True, Mode.KEYS),
        ("keys", False, Mode.KEYS),
        ("open", True, Mode.OPEN),
        ("open", False, Mode.OPEN),
    ],
)
def test_whether_keys_are_asked_for(api_auth, is_loopback, mode):
    assert mode_of(api_auth, is_loopback=is_loopback) is mode


@pytest.mark.parametrize(
    ("address", "is_forwarded", "local"),
    [
        ("127.0.0.1", False, True),
        ("127.8.0.1", False, True),
        ("::1", False, True),
        ("::ffff:127.0.0.1", False, True),
        # A socket in the file system, and a test's client.
        ("", False, True),
        (None, False, True),
        ("127.0.0.1", True, False),
        ("10.0.0.5", False, False),
        ("0.0.0.0", False, False),  # noqa: S104 - nothing is bound here
        ("fe80::1%eth0", False, False),
        ("localhost", False, False),
    ],
)
def test_who_comes_from_this_host(address, is_forwarded, local):
    assert is_local(address, is_forwarded=is_forwarded) is local


@pytest.mark.parametrize(
    ("changes", "is_on_loopback"),
    [
        ({}, True),
        ({"api_host": "::1"}, True),
        ({"api_host": "localhost"}, True),
        ({"api_host": "10.0.0.5"}, False),
        ({"api_host": "0.0.0.0"}, False),  # noqa: S104 - nothing is bound here
        # A proxy lets others in.
        ({"trusted_proxies": 1}, False),
    ],
)
def test_when_only_this_host_reaches_the_api(changes, is_on_loopback):
    assert Settings(**changes).is_on_loopback is is_on_loopback


def test_whether_keys_are_asked_for_is_one_of_three_words(monkeypatch):
    monkeypatch.setenv("API_AUTH", "off")
    with pytest.raises(SettingsError, match=r"^API_AUTH: must be one of auto, keys, open \(given: 'off'\)"):
        Settings.load()
