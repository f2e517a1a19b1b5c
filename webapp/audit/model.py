"""Acts as values: what was done, to what, by whom; and the events that are on record. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple


class Event(StrEnum):
    """What may be on record."""

    #: A job was cancelled, or asked to stop.
    JOB_CANCEL = "job.cancel"
    #: A job that ended was queued again.
    JOB_RETRY = "job.retry"
    #: Jobs of dead letters were queued again.
    DLQ_REQUEUE = "dlq.requeue"
    #: A workflow was cancelled.
    WORKFLOW_CANCEL = "workflow.cancel"
    #: What failed of a workflow was begun again.
    WORKFLOW_RETRY = "workflow.retry"
    #: Dead letters were put aside.
    DLQ_DISCARD = "dlq.discard"
    #: A pause or a limit of a queue, a task or a key was changed.
    FLOW_CHANGE = "flow.change"
    #: A schedule was made, or given another version.
    SCHEDULE_PUT = "schedule.put"
    #: A schedule was deleted.
    SCHEDULE_DELETE = "schedule.delete"
    #: A schedule was paused.
    SCHEDULE_PAUSE = "schedule.pause"
    #: A schedule was resumed.
    SCHEDULE_RESUME = "schedule.resume"
    #: A schedule was run by hand.
    SCHEDULE_RUN = "schedule.run"
    #: Times of a schedule were filled in later.
    SCHEDULE_BACKFILL = "schedule.backfill"
    #: A batch was closed by hand.
    BATCH_CLOSE = "batch.close"
    #: A batch was cancelled.
    BATCH_CANCEL = "batch.cancel"
    #: Failed members of a batch were queued again.
    BATCH_RETRY = "batch.retry"
    #: The first key was made, or another by the same command.
    KEY_INIT = "key.init"
    #: A key was made.
    KEY_CREATE = "key.create"
    #: A key got another secret.
    KEY_ROTATE = "key.rotate"
    #: How much a key may use was changed.
    KEY_QUOTAS = "key.quotas"
    #: A key was ended.
    KEY_REVOKE = "key.revoke"
    #: A tenant was made.
    TENANT_CREATE = "tenant.create"
    #: A tenant's keys are refused from here on.
    TENANT_SUSPEND = "tenant.suspend"
    #: They are let in again.
    TENANT_RESUME = "tenant.resume"
    #: How much all keys of a tenant may use together was changed.
    TENANT_QUOTAS = "tenant.quotas"
    #: Calls were refused for want of a key or a scope; counted, and not let happen.
    CALL_REFUSED = "call.refused"


class ActorKind(StrEnum):
    """By what an actor is known."""

    #: The key that they have shown.
    KEY = "key"
    #: Where they ask from: no key was asked for.
    ADDRESS = "address"
    #: The user of the operating system who gave a command.
    CLI = "cli"
    #: DJPS itself.
    SYSTEM = "system"


class Named(NamedTuple):
    """Something by its kind and its id, written `kind:id`.

    Example:
        >>> str(Named("job", "018f")), Named.read("flow:queues/a:b")
        ('job:018f', Named(kind='flow', id='queues/a:b'))
    """

    kind: str
    id: str

    def __str__(self) -> str:
        return f"{self.kind}:{self.id}"

    @classmethod
    def read(cls, given: str) -> Named:
        """What `kind:id` names.

        Raises:
            ValueError: there is no kind, or no id.
        """
        kind, _, of_kind = given.partition(":")
        if not kind or not of_kind:
            raise ValueError("must be a kind and an id, such as job:018f3a5e-... or key:7")
        return cls(kind, of_kind)


@dataclass(frozen=True, slots=True)
class Actor:
    """Who does something, by what they have shown, and not by what they say.

    Args:
        kind: by what they are known.
        id: the number of their key, their address, or the name of the user.
        name: what people call them.
        address: where they ask from; None: on this host, by a command.
        request_id: of the request by which they do it.
        tenant: the number of the tenant of their key; None: the default one, or no key.
    """

    kind: ActorKind
    id: str
    name: str
    address: str | None = None
    request_id: str | None = None
    tenant: int | None = None


#: DJPS itself.
SYSTEM = Actor(ActorKind.SYSTEM, "djps", "djps")


def the_system() -> Actor:
    """The actor where no request and no command is the cause."""
    return SYSTEM


@dataclass(frozen=True, slots=True)
class Act:
    """What was done.

    Args:
        event: which kind of act.
        target: what it was done to; None: to several, which `details` describe.
        matched: how many it could have changed, where it was about several.
        changed: how many it changed.
        reason: why, in the actor's words.
        on_behalf_of: for whom, in the actor's words.
        details: what else is to be known; never a payload or a secret.
    """

    event: Event
    target: Named | None = None
    matched: int | None = None
    changed: int | None = None
    reason: str | None = None
    on_behalf_of: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)

    def details_for(self, actor: Actor) -> dict[str, Any]:
        """The details, with for whom it was done where that is someone else.

        Example:
            >>> Act(Event.JOB_CANCEL, on_behalf_of="djps").details_for(SYSTEM)
            {}
        """
        is_actor = self.on_behalf_of in {None, actor.name, actor.address}
        return dict(self.details) | ({} if is_actor else {"on_behalf_of": self.on_behalf_of})


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """A line of the record; fields as of `Actor` and `Act`, with when it was, and whether it was let happen."""

    id: int
    at: datetime
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
    tenant: str | None = None


class Whose(NamedTuple):
    """Of which tenant events are wanted.

    Args:
        tenant: the number of one beside the default one; None: what is not of one.
        of_all: of all.
    """

    tenant: int | None = None
    of_all: bool = False


#: Of the default tenant.
OF_DEFAULT = Whose()
#: Of all tenants, which only the command line sees.
OF_ALL = Whose(of_all=True)


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Which events are wanted; None stands for any.

    Args:
        event: of this kind.
        actor: by them.
        target: about this.
        after: not before this.
        before: before this.
        whose: of which tenant.
    """

    event: str | None = None
    actor: Named | None = None
    target: Named | None = None
    after: datetime | None = None
    before: datetime | None = None
    whose: Whose = OF_DEFAULT

    def values(self) -> dict[str, Any]:
        """The values of a statement's conditions."""
        actor, target = self.actor or (None, None), self.target or (None, None)
        return {
            "event": self.event,
            "actor_kind": actor[0],
            "actor_id": actor[1],
            "target_kind": target[0],
            "target_id": target[1],
            "after": self.after,
            "before": self.before,
            "tenant": self.whose.tenant,
        }
