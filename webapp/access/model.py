"""Access as values: scopes, the roles that are sets of them, who asks, and whether they may. No I/O.

A caller has a reach, which has a tenant: all that is kept to a tenant's rows takes it from there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import NamedTuple

from webapp.access.errors import KeyExpired, NotFromHere, TenantSuspended
from webapp.access.quotas import Quotas
from webapp.flow.reach import Reach
from webapp.flow.tenant import DEFAULT, DEFAULT_SLUG, DEFAULT_TENANT, Tenant


class Scope(StrEnum):
    """What a call may need. Each call of the API needs one of these, or none."""

    #: Submit jobs.
    JOBS_SUBMIT = "jobs:submit"
    #: Look at jobs, without what they carry.
    JOBS_READ = "jobs:read"
    #: See what jobs carry: payload, result, errors, tracebacks, notes, callback URLs.
    JOBS_CONTENT = "jobs:content"
    #: Cancel jobs, and queue ended ones again.
    JOBS_CONTROL = "jobs:control"
    #: Look at dead letters.
    DLQ_READ = "dlq:read"
    #: Requeue and discard dead letters.
    DLQ_MANAGE = "dlq:manage"
    #: Look at queues, tasks and keys, and who changed them.
    QUEUES_READ = "queues:read"
    #: Pause and limit queues, tasks and keys.
    QUEUES_MANAGE = "queues:manage"
    #: Look at schedules and what they fired.
    SCHEDULES_READ = "schedules:read"
    #: Make, change, delete, pause and run schedules.
    SCHEDULES_MANAGE = "schedules:manage"
    #: Read metrics, which are about all tenants.
    METRICS_READ = "metrics:read"
    #: Look at workers, settings, servers and figures of all queues.
    SYSTEM_READ = "system:read"
    #: Read the record of acts.
    AUDIT_READ = "audit:read"
    #: Look at keys, make, rotate and revoke them.
    ACCESS_MANAGE = "access:manage"


class Openness(StrEnum):
    """What a call needs that needs no scope."""

    #: No key.
    PUBLIC = "public"
    #: Any key.
    ANY_KEY = "any key"


#: What a call needs.
Need = Scope | Openness


class Role(StrEnum):
    """A named set of scopes."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"


_VIEWER = frozenset({Scope.JOBS_READ, Scope.DLQ_READ, Scope.QUEUES_READ, Scope.SCHEDULES_READ})
_OPERATOR = _VIEWER | {
    Scope.JOBS_SUBMIT,
    Scope.JOBS_CONTENT,
    Scope.JOBS_CONTROL,
    Scope.DLQ_MANAGE,
    Scope.QUEUES_MANAGE,
    Scope.SCHEDULES_MANAGE,
    Scope.METRICS_READ,
    Scope.SYSTEM_READ,
}
#: What these scopes are for is about all queues, so no key that is kept to some has one of them.
OF_ALL_QUEUES = frozenset({Scope.METRICS_READ, Scope.SYSTEM_READ, Scope.AUDIT_READ, Scope.ACCESS_MANAGE})
#: What these are for is about all tenants, or the default tenant's alone as schedules are, so only its keys have them, whatever their
#: role is.
OF_ALL_TENANTS = frozenset(
    {Scope.METRICS_READ, Scope.SYSTEM_READ, Scope.SCHEDULES_READ, Scope.SCHEDULES_MANAGE}
)
#: The scopes of each role.
SCOPES_OF: Mapping[Role, frozenset[Scope]] = {
    Role.VIEWER: _VIEWER,
    Role.OPERATOR: _OPERATOR,
    Role.ADMIN: frozenset(Scope),
}


def scopes_of(role: str | None, scopes: Iterable[str]) -> frozenset[Scope]:
    """The scopes of a role and of single names together; a name that this release does not know gives nothing.

    Example:
        >>> sorted(scopes_of(None, ["jobs:read", "of a later release"]))
        [<Scope.JOBS_READ: 'jobs:read'>]
    """
    known = {str(scope): scope for scope in Scope}
    of_role = SCOPES_OF[Role(role)] if role in set(Role) else frozenset()
    return of_role | {known[name] for name in scopes if name in known}


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, as far as it decides what they may.

    Args:
        scopes: what they may.
        reach: of which tenant, and of which of its queues.
        key: the number of the key that they have shown; None: none was asked for.
        name: the name of that key.
        expires_at: when what they have shown is good no more, seconds of the epoch; None: never.
        quotas: how much they may use; None: as much as all others.
        of_tenant: how much all keys of their tenant may use together; None: as much as they like.
    """

    scopes: frozenset[Scope]
    reach: Reach
    key: int | None = None
    name: str | None = None
    expires_at: float | None = None
    quotas: Quotas | None = None
    of_tenant: Quotas | None = None

    @property
    def tenant(self) -> Tenant:
        """Whose rows they may reach."""
        return self.reach.home

    @property
    def sees_content(self) -> bool:
        """True if they may see what jobs carry."""
        return Scope.JOBS_CONTENT in self.scopes


@dataclass(frozen=True, slots=True)
class TenantRecord:
    """A tenant on record.

    Args:
        slug: its name, with which the names of its own queues begin.
        name: what people call it.
        suspended_at: since when its keys are refused; None: they are not.
        quotas: how much all its keys may use together; None: as much as they like.
        keys: how many of its keys are not revoked.
    """

    id: int
    slug: str
    name: str
    created_at: datetime
    suspended_at: datetime | None
    quotas: Quotas | None
    keys: int

    @property
    def status(self) -> str:
        """`active`, or `suspended`."""
        return "active" if self.suspended_at is None else "suspended"

    @property
    def is_default(self) -> bool:
        """True for the one that there always is."""
        return self.id == DEFAULT_TENANT


#: A caller where no key is asked for: may everything, as one of the default tenant.
ANYONE = Caller(frozenset(Scope), Reach(DEFAULT, None))


class Mode(StrEnum):
    """Whether keys are asked for."""

    #: None is, and none that is sent is looked at: something in front of the API asks who is there.
    OPEN = "open"
    #: None is of those on this host; one that is sent must be good.
    LOOPBACK = "loopback"
    #: Every call needs one, but for those that are public.
    KEYS = "keys"


def mode_of(api_auth: str, *, is_loopback: bool) -> Mode:
    """Whether keys are asked for.

    Args:
        api_auth: the setting: auto, keys or open.
        is_loopback: only this host reaches the API.

    Example:
        >>> mode_of("auto", is_loopback=False)
        <Mode.KEYS: 'keys'>
    """
    if api_auth == "auto":
        return Mode.LOOPBACK if is_loopback else Mode.KEYS
    return Mode(api_auth)


def is_local(address: str | None, *, is_forwarded: bool) -> bool:
    """True if a request comes from this host itself, as far as that can be seen.

    Args:
        address: the client's; empty for one at a socket of this host's file system.
        is_forwarded: a proxy says that it comes from elsewhere.

    Example:
        >>> is_local("127.0.0.1", is_forwarded=False), is_local("127.0.0.1", is_forwarded=True), is_local("10.0.0.5", is_forwarded=False)
        (True, False, False)
    """
    # These spare the hot path the reading of an address.
    return not is_forwarded and (not address or address in _LOCAL or is_within(address, _LOOPBACK))


class Refused(NamedTuple):
    """That a caller may not do this.

    Args:
        missing: the scope that they lack; None: a key.
    """

    missing: Scope | None


def refusal_of(need: Need, caller: Caller | None) -> Refused | None:
    """Why a caller may not make a call; None when they may.

    Args:
        need: what the call needs.
        caller: None for one who has shown no key where one is needed.

    Example:
        >>> refusal_of(Scope.JOBS_SUBMIT, Caller(frozenset({Scope.JOBS_READ}), ANYONE.reach))
        Refused(missing=<Scope.JOBS_SUBMIT: 'jobs:submit'>)
    """
    if need is Openness.PUBLIC:
        return None
    if caller is None:
        return Refused(None)
    if need is Openness.ANY_KEY or need in caller.scopes:
        return None
    return Refused(Scope(need))


Network = IPv4Network | IPv6Network
#: Addresses that only this host reaches.
_LOCAL = ("127.0.0.1", "::1")
_LOOPBACK: tuple[Network, ...] = (IPv4Network("127.0.0.0/8"), IPv6Network("::1"))


@dataclass(frozen=True, slots=True)
class LiveKey:
    """A secret that is good for a key, as each process keeps it.

    Args:
        caller: who shows it.
        networks: from where it may be shown; none stands for everywhere.
        is_suspended: its tenant is.
    """

    caller: Caller
    networks: tuple[Network, ...] = ()
    is_suspended: bool = False

    def check(self, now: float, address: str | None) -> None:
        """Looks whether the key may be shown now, and from there.

        Args:
            now: seconds of the epoch.
            address: the client's.

        Raises:
            KeyExpired: it has expired.
            NotFromHere: it must not be shown from there.
            TenantSuspended: its tenant is.
        """
        if self.is_suspended:
            raise TenantSuspended(self.caller.tenant.slug)
        expires_at = self.caller.expires_at
        if expires_at is not None and now >= expires_at:
            raise KeyExpired(f"the key {self.caller.name!r} has expired")
        if self.networks and not is_within(address, self.networks):
            raise NotFromHere(f"the key {self.caller.name!r} may not be used from {address or 'there'}")


def is_within(address: str | None, networks: Iterable[Network]) -> bool:
    """True if an address is in one of the networks; an IPv4 address in IPv6's notation is the IPv4 address.

    Example:
        >>> from ipaddress import ip_network
        >>> is_within("::ffff:10.1.2.3", [ip_network("10.0.0.0/8")])
        True
    """
    try:
        found = ip_address((address or "").partition("%")[0])
    except ValueError:
        return False
    if isinstance(found, IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    return any(found in network for network in networks)


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that is to be made.

    Args:
        name: what it is for.
        role: whose scopes it has; None: only its own.
        scopes: its own.
        networks: from where it may be shown, such as 10.0.0.0/8; none stands for everywhere.
        lifetime: how long it is good, seconds; None: until it is revoked.
        queues: of which queues it may see and steer jobs; none stands for all.
        quotas: how much it may use; None: as much as all others.
        tenant: the name of the tenant whose rows it may reach.
    """

    name: str
    role: Role | None = None
    scopes: tuple[Scope, ...] = ()
    networks: tuple[str, ...] = ()
    lifetime: float | None = None
    queues: tuple[str, ...] = ()
    quotas: Quotas | None = None
    tenant: str = DEFAULT_SLUG


@dataclass(frozen=True, slots=True)
class AccessKey:
    """A key on record; nothing in it lets one in.

    Args:
        state: `live`, `revoked` or `expired`, by the database's clock.
        hints: the last characters of the secrets that are good for it, the older first; one, and two while it is rotated.
        queues: of which queues it may see and steer jobs; none stands for all.
        tenant: the name of the tenant whose rows it may reach.
    """

    id: int
    tenant: str
    name: str
    role: str | None
    scopes: tuple[str, ...]
    networks: tuple[str, ...]
    created_by: str | None
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    last_used_from: str | None
    state: str
    hints: tuple[str, ...]
    queues: tuple[str, ...]
    quotas: Quotas | None

    @property
    def is_live(self) -> bool:
        """True if it lets someone in."""
        return self.state == "live"


class Issued(NamedTuple):
    """A key with a secret that was just made; it is shown to one person, once."""

    key: AccessKey
    secret: str
