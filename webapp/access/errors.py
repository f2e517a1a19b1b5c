"""What access control refuses, and why. Each says it in one sentence that holds no key."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from webapp.access.model import AccessKey, Scope

#: How a key is sent.
HOW_TO_SEND = "send it as `Authorization: Bearer djps_k_...`"


class AccessError(Exception):
    """The base of every error that access control raises."""


class NoGoodKey(AccessError):
    """A key is needed, and there was none, or one that is not good."""

    def __init__(self, what: str = "this needs a key") -> None:
        super().__init__(f"{what}: {HOW_TO_SEND}")


class NoKey(NoGoodKey):
    """A key is needed, and none was sent."""


class NotFromHere(AccessError):
    """The request comes from an address from which it must not come."""


class ScopeMissing(AccessError):
    """The caller's key lacks a scope."""

    def __init__(self, missing: Scope, name: str | None) -> None:
        whose = "the caller" if name is None else f"the key {name!r}"
        super().__init__(f"this needs the scope {missing}, and {whose} does not have it")
        self.missing = missing


class KeysUnknown(AccessError):
    """Which keys there are cannot be said: the database does not answer."""

    def __init__(self) -> None:
        super().__init__(
            "the database is not answering, so whether the key is good is not known; send the request again"
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
