"""What access control refuses, and why. Each says it in one sentence that holds no key."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterable

    from webapp.access.model import AccessKey, Scope

#: How a key is sent.
HOW_TO_SEND = "send it as `Authorization: Bearer djps_k_...`"


class AccessError(Exception):
    """The base of every error that access control raises."""


class NotLetIn(AccessError):
    """A request is refused for who asks, before anything is done for it."""

    #: What it is counted as.
    reason: ClassVar[str]


class NoGoodKey(NotLetIn):
    """A key is needed, and there was none, or one that is not good."""

    reason = "unknown"

    def __init__(self, what: str = "this needs a key") -> None:
        super().__init__(f"{what}: {HOW_TO_SEND}")


class NoKey(NoGoodKey):
    """A key is needed, and none was sent."""

    reason = "no_key"


class MalformedKey(NoGoodKey):
    """What was sent does not have the form of a key."""

    reason = "malformed"


class KeyExpired(NoGoodKey):
    """The key was good, and is no longer."""

    reason = "expired"


class TooManyAttempts(NotLetIn):
    """Too many keys that are not good came from an address, so further ones are not looked at for a while.

    Args:
        retry_after: until they are, seconds.
    """

    reason = "too_many"

    def __init__(self, most: int, window: float, retry_after: int) -> None:
        super().__init__(
            f"{most} keys that are not good came from this address within {window:.0f} seconds, so another one is not looked at yet;"
            f" try again in {retry_after} seconds"
        )
        self.retry_after = retry_after


class NotFromHere(NotLetIn):
    """The request comes from an address from which it must not come."""

    reason = "address"


class HostNotServed(NotLetIn):
    """The request is for another host's name: a page may have given its own name this server's address."""

    reason = "host"

    def __init__(self, given: str) -> None:
        super().__init__(
            f"this server does not answer for the host {given[:100]!r}; TRUSTED_HOSTS names those it answers for"
        )


class FromAnotherSite(NotLetIn):
    """A page of another site asks for something to be changed."""

    reason = "another_site"

    def __init__(self, given: str) -> None:
        super().__init__(f"a page of another site must not do this (given: {given[:100]})")


class TenantSuspended(NotLetIn):
    """The tenant of the key is suspended."""

    reason = "suspended"

    def __init__(self, slug: str) -> None:
        super().__init__(
            f"the tenant {slug!r} is suspended, so its keys are refused; its jobs that wait and run go on"
        )


class ScopeMissing(NotLetIn):
    """The caller's key lacks a scope."""

    reason = "scope"

    def __init__(self, missing: Scope, name: str | None) -> None:
        whose = "the caller" if name is None else f"the key {name!r}"
        super().__init__(f"this needs the scope {missing}, and {whose} does not have it")
        self.missing = missing


class KeysUnknown(NotLetIn):
    """Which keys there are cannot be said: the database does not answer."""

    reason = "database_away"

    def __init__(self) -> None:
        super().__init__(
            "the database is not answering, so whether the key is good is not known; send the request again"
        )


class Whose(StrEnum):
    """Whose quota it is."""

    KEY = "key"
    TENANT = "tenant"


class QuotaExceeded(AccessError):
    """A key, or a tenant, has used as much as it may.

    Args:
        quota: its name.
        limit: as much as it may use.
        used: what it has used, within the minute or right now.
        retry_after: until it may go on, seconds; None: this alone is more than it may ever use at once.
        whose: it is.
    """

    def __init__(
        self, quota: str, limit: int, used: int, retry_after: int | None, *, whose: Whose = Whose.KEY
    ) -> None:
        when = (
            "this alone is more: ask for less at once"
            if retry_after is None
            else f"come again in {retry_after} s"
        )
        super().__init__(f"the {whose}'s quota {quota} is {limit:,}, and {used:,} are used; {when}")
        self.quota = quota
        self.limit = limit
        self.used = used
        self.retry_after = retry_after


class UnknownTenant(AccessError):
    """There is no such tenant."""

    def __init__(self, slug: str) -> None:
        super().__init__(f"there is no tenant {slug!r}; `access tenant list` shows those that there are")


class TenantExists(AccessError):
    """There is a tenant of this name."""

    def __init__(self, slug: str) -> None:
        super().__init__(f"there is a tenant {slug!r} already")


class TooManyTenants(AccessError):
    """There are as many tenants as may be."""

    def __init__(self, most: int) -> None:
        super().__init__(f"there are {most:,} tenants, and no more may be")


class NameTaken(AccessError):
    """A queue that others may use would become the new tenant's own."""

    def __init__(self, slug: str, queues: Iterable[str]) -> None:
        super().__init__(
            f"a tenant {slug!r} would own the queues whose names begin with its own and a dot, and there are such:"
            f" {', '.join(sorted(queues))}; take another name"
        )


class NotTheDefault(AccessError):
    """The default tenant is always there, and is not suspended."""

    def __init__(self) -> None:
        super().__init__("the default tenant cannot be suspended: it is that of those who run DJPS")


class NotCounted(AccessError):
    """Waiting jobs of the default tenant are not counted for a quota."""

    def __init__(self) -> None:
        super().__init__(
            "max_queued is for tenants beside the default one, whose waiting jobs have an index; bound its queues by max_depth"
        )


class OlderProcesses(AccessError):
    """A process of a release that keeps no tenants apart may be alive.

    Args:
        workers: the workers that are; None: it is not known which there are.
    """

    def __init__(self, workers: Iterable[str] | None) -> None:
        super().__init__(
            "Redis does not say which workers are alive, so whether all of them keep tenants apart; try again"
            if workers is None
            else "a tenant can be made once no worker of a release that keeps none apart is alive: restart "
            + ", ".join(list(workers)[:5])
        )


class UnknownKey(AccessError):
    """There is no such key."""

    def __init__(self, which: int | None = None) -> None:
        super().__init__("no key has this secret" if which is None else f"there is no key {which}")


class KeyEnded(AccessError):
    """The key is good no more, so it gets no new secret."""

    def __init__(self, key: AccessKey) -> None:
        super().__init__(
            f"key {key.id} ({key.name!r}) is {key.state}; make a new one with `access key create`"
        )


class TooManyKeys(AccessError):
    """As many keys are live as may."""

    def __init__(self, most: int) -> None:
        super().__init__(f"{most:,} keys are live, and no more may be; revoke some first")


class AdminExists(AccessError):
    """There is a key with the role admin, so the first one was made before."""

    def __init__(self, key: AccessKey) -> None:
        super().__init__(
            f"there is an admin key already: {key.id} ({key.name!r}, ends in {', '.join(key.hints)}); --again makes another one"
        )


class CannotGive(AccessError):
    """A key would get what the one that asks for it does not have."""

    def __init__(self, giver: AccessKey, lacking: Iterable[str]) -> None:
        super().__init__(f"the key {giver.name!r} cannot give what it does not have: {'; '.join(lacking)}")


class OnCommandLine(AccessError):
    """This is done on the command line alone."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what}: use `flask --app wsgi access key`")
