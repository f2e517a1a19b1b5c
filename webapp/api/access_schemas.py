"""The wire format of keys and callers: what a new key may be, a key on record, and who the caller is."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from ipaddress import ip_network
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from webapp.access.model import (
    OF_ALL_QUEUES,
    AccessKey,
    Caller,
    Issued,
    Mode,
    NewKey,
    Role,
    Scope,
    TenantRecord,
    scopes_of,
)
from webapp.access.quotas import MOST, MOST_OF_TENANT, Quotas, quotas_of
from webapp.api.schemas import Moment
from webapp.flow.tenant import DEFAULT_SLUG
from webapp.infra.jsontext import iso
from webapp.jobs.handlers import NAME
from webapp.jobs.request import printable

#: Most networks from which one key may be used.
MAX_NETWORKS = 20
#: Most queues of one key.
MAX_QUEUES = 100
#: How long a key lives of which nothing is said, seconds.
LIFETIME = 365 * 86_400.0
#: Longest that a key lives, and longest that the secret before is good while one is rotated, seconds.
MAX_LIFETIME, MAX_OVERLAP = 3_650 * 86_400.0, 30 * 86_400.0


def _network(value: str) -> str:
    try:
        return str(ip_network(value))
    except ValueError as error:
        raise ValueError(f"must be a network or an address, such as 10.0.0.0/8; {error}") from None


QueueName = Annotated[str, Field(pattern=f"^{NAME.pattern}$")]
Network = Annotated[str, Field(min_length=1, max_length=50), AfterValidator(_network)]


class QuotasRequest(BaseModel):
    """How much a key may use; what is left out or null, as much as all others."""

    model_config = ConfigDict(extra="forbid", strict=True)

    submit_per_minute: int | None = Field(None, ge=1, le=MOST["submit_per_minute"])
    read_per_minute: int | None = Field(None, ge=1, le=MOST["read_per_minute"])
    max_waiters: int | None = Field(None, ge=1, le=MOST["max_waiters"])
    max_payload_bytes: int | None = Field(None, ge=64, le=MOST["max_payload_bytes"])

    def wanted(self) -> Quotas | None:
        """What the domain is asked for."""
        return quotas_of(self.model_dump())


class QuotasAnswer(BaseModel):
    """How much a key may use; null: as much as all others."""

    model_config = ConfigDict(extra="forbid", from_attributes=True)

    submit_per_minute: int | None = None
    read_per_minute: int | None = None
    max_waiters: int | None = None
    max_payload_bytes: int | None = None


class TenantQuotasRequest(QuotasRequest):
    """How much all keys of a tenant may use together; what is left out or null, as much as they like."""

    max_queued: int | None = Field(None, ge=1, le=MOST_OF_TENANT["max_queued"])


class TenantQuotasAnswer(QuotasAnswer):
    """The same, as it is."""

    max_queued: int | None = None


class AccessKeyRequest(BaseModel):
    """A key that is to be made; `lifetime` is in seconds, null: until it is revoked."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: Annotated[str, Field(min_length=1, max_length=100), AfterValidator(printable)]
    role: Annotated[Role, Field(strict=False)] | None = None
    scopes: Annotated[list[Annotated[Scope, Field(strict=False)]], Field(max_length=len(Scope))] = []
    networks: Annotated[list[Network], Field(max_length=MAX_NETWORKS)] = []
    queues: Annotated[list[QueueName], Field(max_length=MAX_QUEUES)] = []
    quotas: QuotasRequest = QuotasRequest()
    lifetime: float | None = Field(LIFETIME, ge=1, le=MAX_LIFETIME)

    @model_validator(mode="after")
    def _may_do_something(self) -> Self:
        if self.role is None and not self.scopes:
            raise ValueError("must have a role, or scopes, or both")
        refused = sorted(OF_ALL_QUEUES & scopes_of(self.role, self.scopes))
        if self.queues and refused:
            raise ValueError(
                f"cannot have queues and {', '.join(refused)}: metrics, the system, the record of acts and keys are about all queues;"
                " leave the role out and give it other scopes"
            )
        return self

    def wanted(self, tenant: str = DEFAULT_SLUG) -> NewKey:
        """What the domain is asked for.

        Args:
            tenant: the name of the one whose key it is.
        """
        scopes = tuple(dict.fromkeys(self.scopes))
        queues = tuple(dict.fromkeys(self.queues))
        networks, quotas = tuple(self.networks), self.quotas.wanted()
        return NewKey(self.name, self.role, scopes, networks, self.lifetime, queues, quotas, tenant)


class RotateRequest(BaseModel):
    """How long the secret before is good, seconds."""

    model_config = ConfigDict(extra="forbid", strict=True)

    overlap: float = Field(86_400.0, ge=0, le=MAX_OVERLAP)


class AccessKeysQuery(BaseModel):
    """Which keys are listed; with `ended` also those that are revoked or have expired."""

    model_config = ConfigDict(extra="forbid")

    ended: bool = False
    limit: int = Field(100, ge=1, le=1_000)
    cursor: int | None = Field(None, ge=1, le=2**31 - 1)


class AccessKeyAnswer(BaseModel):
    """A key on record; `secrets` are the last characters of those that are good for it."""

    model_config = ConfigDict(extra="forbid", from_attributes=True)

    id: int
    tenant: str
    name: str
    state: Literal["live", "expired", "revoked"]
    role: str | None
    scopes: list[str]
    networks: list[str]
    queues: list[str]
    quotas: QuotasAnswer | None
    created_by: str | None
    created_at: Moment
    expires_at: Moment | None
    revoked_at: Moment | None
    last_used_at: Moment | None
    last_used_from: str | None
    secrets: list[str]

    @classmethod
    def of(cls, key: AccessKey) -> dict[str, Any]:
        """The JSON-ready form of a key."""
        fields = {name: getattr(key, name) for name in cls.model_fields if name != "secrets"}
        lists = {
            "scopes": list(key.scopes),
            "networks": list(key.networks),
            "queues": list(key.queues),
            "secrets": list(key.hints),
        }
        return cls.model_validate(fields | lists).model_dump(mode="json")


class IssuedAnswer(AccessKeyAnswer):
    """A key with a secret that was just made: it is shown this once."""

    secret: str

    @classmethod
    def of_issued(cls, issued: Issued) -> dict[str, Any]:
        """The JSON-ready form of a key with its secret."""
        return AccessKeyAnswer.of(issued.key) | {"secret": issued.secret}


class AccessKeyPage(BaseModel):
    """A page of keys, the newest first."""

    model_config = ConfigDict(extra="forbid")

    items: list[AccessKeyAnswer]
    next_cursor: int | None

    @classmethod
    def of(cls, keys: Sequence[AccessKey], limit: int) -> dict[str, Any]:
        """The JSON-ready form of a page that may have so many."""
        next_cursor = keys[-1].id if len(keys) == limit else None
        return {"items": [AccessKeyAnswer.of(key) for key in keys], "next_cursor": next_cursor}


class TenantRequest(BaseModel):
    """A tenant that is to be made."""

    model_config = ConfigDict(extra="forbid", strict=True)

    slug: Annotated[str, Field(pattern="^[a-z][a-z0-9-]{0,29}$")]
    name: Annotated[str, Field(min_length=1, max_length=100), AfterValidator(printable)]


class TenantAnswer(BaseModel):
    """A tenant on record; `keys` is how many of its keys are not revoked."""

    model_config = ConfigDict(extra="forbid", from_attributes=True)

    id: int
    slug: str
    name: str
    status: Literal["active", "suspended"]
    created_at: Moment
    suspended_at: Moment | None
    quotas: TenantQuotasAnswer | None
    keys: int

    @classmethod
    def of(cls, tenant: TenantRecord) -> dict[str, Any]:
        """The JSON-ready form of a tenant."""
        return cls.model_validate(tenant).model_dump(mode="json")


class CallerAnswer(BaseModel):
    """The answer of `GET /access/me`: `key` and `name` are null where no key was asked for; `queues` where it is good for all."""

    model_config = ConfigDict(extra="forbid")

    mode: Literal["open", "loopback", "keys"]
    tenant: str
    key: int | None
    name: str | None
    scopes: list[Scope]
    queues: list[str] | None
    quotas: QuotasAnswer | None
    expires_at: str | None

    @classmethod
    def of(cls, caller: Caller, mode: Mode) -> dict[str, Any]:
        """The JSON-ready form of a caller."""
        return {
            "mode": mode.value,
            "tenant": caller.tenant.slug,
            "key": caller.key,
            "name": caller.name,
            "scopes": sorted(scope.value for scope in caller.scopes),
            "queues": None if caller.reach.queues is None else sorted(caller.reach.queues),
            "quotas": None
            if caller.quotas is None
            else {name: getattr(caller.quotas, name) for name in QuotasAnswer.model_fields},
            "expires_at": None
            if caller.expires_at is None
            else iso(datetime.fromtimestamp(caller.expires_at, UTC)),
        }
