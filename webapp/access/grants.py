"""What a key may give to another: nothing that it does not have itself. Pure.

A role or scope that this release does not know is nothing that a key has, so it cannot be given. A key that gives is good for all
queues, so of queues nothing is asked.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from ipaddress import ip_network
from typing import Any, NamedTuple

from webapp.access.model import SCOPES_OF, AccessKey, NewKey, Role, Scope, scopes_of
from webapp.access.quotas import Quotas, beyond


class Grant(NamedTuple):
    """What a key has, or shall have.

    Args:
        role: whose scopes; None: only its own.
        scopes: its own.
        networks: from where it may be shown; none stands for everywhere.
        until: when it ends; None: when it is revoked.
        quotas: how much it may use; None: as much as all others.
    """

    role: str | None
    scopes: tuple[str, ...]
    networks: tuple[str, ...]
    until: datetime | None
    quotas: Quotas | None = None

    @property
    def makes_keys(self) -> bool:
        """True if it may make and rotate keys."""
        return Scope.ACCESS_MANAGE in scopes_of(self.role, self.scopes)


def grant_of(key: AccessKey) -> Grant:
    """What a key on record has."""
    return Grant(key.role, key.scopes, key.networks, key.expires_at, key.quotas)


def grant_of_new(wanted: NewKey, now: datetime) -> Grant:
    """What a key that is to be made shall have."""
    until = None if wanted.lifetime is None else now + timedelta(seconds=wanted.lifetime)
    return Grant(wanted.role, wanted.scopes, wanted.networks, until, wanted.quotas)


def lacking(has: Grant, wanted: Grant) -> list[str]:
    """What a key lacks to give what is wanted, in words; empty: nothing.

    Example:
        >>> lacking(Grant("viewer", (), (), None), Grant("viewer", ("jobs:submit",), (), None))
        ['the scope jobs:submit']
    """
    may = scopes_of(has.role, has.scopes)
    found = [f"the scope {scope}" for scope in wanted.scopes if scope not in may]
    if wanted.role is not None and not _includes(has.role, wanted.role):
        found.append(f"the role {wanted.role}")
    found += _beyond(has.networks, wanted.networks)
    found += beyond(has.quotas, wanted.quotas)
    if has.until is not None and (wanted.until is None or wanted.until > has.until):
        found.append(f"a life beyond {has.until:%Y-%m-%dT%H:%M:%SZ}")
    return found


def _beyond(has: tuple[str, ...], wanted: tuple[str, ...]) -> list[str]:
    """The networks that are wanted and not had; none stands for everywhere."""
    if not has:
        return []
    if not wanted:
        return [f"use from other networks than {', '.join(has)}"]
    return [f"the network {one}" for one in wanted if not _within(one, has)]


def _includes(role: str | None, other: str) -> bool:
    """True if a role has what another has; scopes that happen to be the same are no role: a later release may add to it."""
    if role == other:
        return True
    known = set(Role)
    return role in known and other in known and SCOPES_OF[Role(other)] <= SCOPES_OF[Role(role)]


def _within(network: str, others: Iterable[str]) -> bool:
    try:
        # Of two versions neither is within the other.
        found, around = ip_network(network), list(map(ip_network, others))
    except ValueError:
        return False
    return any(found.version == one.version and _is_subnet(found, one) for one in around)


def _is_subnet(network: Any, other: Any) -> bool:
    return bool(network.subnet_of(other))
