"""The wire format of the record of acts."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from webapp.api.dlq_schemas import Time
from webapp.api.schemas import Moment
from webapp.audit.model import AuditEvent, AuditFilter, Event, Named
from webapp.flow.tenant import DEFAULT_SLUG
from webapp.jobs.request import printable

#: Longest name of an actor or a target, characters.
MAX_NAME = 500


def _named(value: str) -> str:
    Named.read(value)
    return value


KindAndId = Annotated[
    str, Field(min_length=1, max_length=MAX_NAME), AfterValidator(printable), AfterValidator(_named)
]


class AuditQuery(BaseModel):
    """The query of `GET /audit`."""

    model_config = ConfigDict(extra="forbid")

    event: Event | None = Field(None, description="What was done.")
    actor: KindAndId | None = Field(
        None, description="By whom: key:7, address:10.0.0.5, cli:ada or system:djps.", examples=["key:7"]
    )
    target: KindAndId | None = Field(
        None, description="To what: job:ID, key:7 or flow:queues/default.", examples=["key:7"]
    )
    after: Time | None = Field(None, description="Then or later.")
    before: Time | None = Field(None, description="Before that.")
    limit: int = Field(20, ge=1, le=100)
    cursor: int | None = Field(None, ge=1, le=2**63 - 1)

    @property
    def wanted(self) -> AuditFilter:
        """Which events are meant."""
        actor, target = (Named.read(one) if one else None for one in (self.actor, self.target))
        return AuditFilter(self.event, actor, target, self.after, self.before)


class AuditAnswer(BaseModel):
    """An act on record: what was done to what, when, by whom, and why in their words. Fields that do not apply are null."""

    model_config = ConfigDict(extra="forbid", from_attributes=True)

    id: int
    at: Moment
    event: str
    success: bool
    actor_kind: str
    actor_id: str
    actor_name: str
    address: str | None
    request_id: str | None
    target_kind: str | None
    target_id: str | None
    matched: int | None
    changed: int | None
    reason: str | None
    details: dict[str, Any]
    tenant: str

    @classmethod
    def of(cls, event: AuditEvent) -> dict[str, Any]:
        """The JSON-ready form of an event."""
        return cls.model_validate(replace(event, tenant=event.tenant or DEFAULT_SLUG)).model_dump(mode="json")


class AuditPage(BaseModel):
    """A page of acts on record."""

    model_config = ConfigDict(extra="forbid")

    items: list[AuditAnswer]
    next_cursor: int | None
