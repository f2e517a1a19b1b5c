"""Access as values: scopes, the roles that are sets of them, who asks, and whether they may. No I/O.

A caller has a tenant. There is one tenant so far, so every caller has the same; a query that is to be kept to a tenant's rows takes it
from here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

#: The tenant to which everything belongs as long as there is one.
DEFAULT_TENANT = 1


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
    #: Read metrics, which are about all tenants.
    METRICS_READ = "metrics:read"
    #: Make and revoke keys; no call needs it yet, the command line does this.
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


_VIEWER = frozenset({Scope.JOBS_READ, Scope.DLQ_READ, Scope.QUEUES_READ})
_OPERATOR = _VIEWER | {
    Scope.JOBS_SUBMIT,
    Scope.JOBS_CONTENT,
    Scope.JOBS_CONTROL,
    Scope.DLQ_MANAGE,
    Scope.QUEUES_MANAGE,
    Scope.METRICS_READ,
}
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
        tenant: whose rows they may reach.
        key: the number of the key that they have shown; None: none was asked for.
        name: the name of that key.
    """

    scopes: frozenset[Scope]
    tenant: int = DEFAULT_TENANT
    key: int | None = None
    name: str | None = None

    @property
    def sees_content(self) -> bool:
        """True if they may see what jobs carry."""
        return Scope.JOBS_CONTENT in self.scopes


#: A caller where no key is asked for: may everything.
ANYONE = Caller(frozenset(Scope))


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
        >>> refusal_of(Scope.JOBS_SUBMIT, Caller(frozenset({Scope.JOBS_READ})))
        Refused(missing=<Scope.JOBS_SUBMIT: 'jobs:submit'>)
    """
    if need is Openness.PUBLIC:
        return None
    if caller is None:
        return Refused(None)
    if need is Openness.ANY_KEY or need in caller.scopes:
        return None
    return Refused(Scope(need))
