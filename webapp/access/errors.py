"""What access control refuses, and why. Each says it in one sentence that holds no key."""

from __future__ import annotations

from webapp.access.model import Scope

#: How a key is sent.
HOW_TO_SEND = "send it as `Authorization: Bearer djps_k_...`"


class AccessError(Exception):
    """The base of every error that access control raises."""


class NoGoodKey(AccessError):
    """A key is needed, and there was none, or one that is not good."""

    def __init__(self, what: str = "this needs a key") -> None:
        super().__init__(f"{what}: {HOW_TO_SEND}")


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
