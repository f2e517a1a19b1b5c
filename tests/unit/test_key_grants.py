"""What a key may give to another, as a pure decision."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from webapp.access.grants import Grant, grant_of_new, lacking
from webapp.access.model import NewKey, Role, Scope

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)


def grant(role=None, *scopes, networks=(), until=None):
    return Grant(role, scopes, networks, until)


@pytest.mark.parametrize(
    ("has", "wanted", "lacks"),
    [
        (grant("admin"), grant("admin"), []),
        (grant("admin"), grant("viewer", "jobs:submit"), []),
        (grant("operator"), grant("viewer"), []),
        (grant("viewer"), grant("operator"), ["the role operator"]),
        # The scopes of a role today are not the role: a later release may add to it.
        (grant(None, "jobs:read", "dlq:read", "queues:read"), grant("viewer"), ["the role viewer"]),
        (grant(None, *map(str, Scope)), grant("admin"), ["the role admin"]),
        (grant("viewer"), grant(None, "jobs:read"), []),
        (grant(None, "jobs:read"), grant(None, "jobs:read", "jobs:submit"), ["the scope jobs:submit"]),
        # What this release does not know, no key has.
        (grant("admin"), grant(None, "moon:read"), ["the scope moon:read"]),
        (grant("admin"), grant("auditor"), ["the role auditor"]),
        (grant("auditor", "jobs:read"), grant(None, "jobs:read"), []),
        (grant("admin"), grant("viewer", networks=("0.0.0.0/0",)), []),
        (grant("admin", networks=("10.0.0.0/8",)), grant("viewer", networks=("10.1.0.0/16",)), []),
        (
            grant("admin", networks=("10.0.0.0/8",)),
            grant("viewer", networks=("10.1.0.0/16", "0.0.0.0/0")),
            ["the network 0.0.0.0/0"],
        ),
        (grant("admin", networks=("10.0.0.0/8",)), grant("viewer", networks=("::/0",)), ["the network ::/0"]),
        (
            grant("admin", networks=("10.0.0.0/8",)),
            grant("viewer", networks=("nowhere",)),
            ["the network nowhere"],
        ),
        (
            grant("admin", networks=("10.0.0.0/8",)),
            grant("viewer"),
            ["use from other networks than 10.0.0.0/8"],
        ),
        (grant("admin"), grant("viewer", until=NOW), []),
        (grant("admin", until=NOW), grant("viewer", until=NOW), []),
        (grant("admin", until=NOW), grant("viewer"), ["a life beyond 2026-11-28T12:00:00Z"]),
        (
            grant("viewer", until=NOW),
            grant("admin", "jobs:submit", until=NOW + timedelta(seconds=1)),
            ["the scope jobs:submit", "the role admin", "a life beyond 2026-11-28T12:00:00Z"],
        ),
    ],
)
def test_a_key_gives_nothing_that_it_does_not_have(has, wanted, lacks):
    assert lacking(has, wanted) == lacks


@pytest.mark.parametrize(
    ("one", "makes"),
    [
        (grant("admin"), True),
        (grant("operator"), False),
        (grant("viewer", "access:manage"), True),
        (grant(None, "jobs:submit"), False),
    ],
)
def test_a_key_makes_keys_by_its_role_or_a_scope(one, makes):
    assert one.makes_keys is makes


def test_a_new_key_lives_from_now_on():
    assert grant_of_new(NewKey("x", Role.VIEWER, lifetime=60.0), NOW).until == NOW + timedelta(seconds=60)
    assert grant_of_new(NewKey("x", Role.VIEWER), NOW).until is None
