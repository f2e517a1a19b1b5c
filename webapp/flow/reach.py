"""How far a caller reaches: of which tenant, and of which queues, they may see and steer jobs. Pure.

All that reads or steers jobs for a caller takes a reach, and has no default for it: what forgets to ask does not run. A reach says of
which tenant it is; all of them are said by a word of their own, and by no number and no None. `EVERYTHING` is what the command line
reaches.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum

from webapp.flow.tenant import DEFAULT, DEFAULT_TENANT, Tenant, kept, owner_of


class Every(Enum):
    """All of something."""

    TENANT = "every tenant"


@dataclass(frozen=True, slots=True)
class Reach:
    """Of which tenant, and of which queues.

    Args:
        tenant: whose jobs.
        queues: their names; None: of all, also of those that do not exist yet.
        others: the names of other tenants; a queue whose name begins with one of them and a dot is that tenant's own.
        is_alone: there is no other tenant, so nothing has to be kept apart from anything.
        since: when its tenant was made, where that is not the default one: it has no older job.
        key: the number of the key of the API that reaches so far; None: none was shown.

    Example:
        >>> Reach(DEFAULT, frozenset({"mail"})).has("video"), EVERYTHING.has("video")
        (False, True)
    """

    tenant: Tenant | Every
    queues: frozenset[str] | None
    others: frozenset[str] = frozenset()
    is_alone: bool = False
    since: datetime | None = None
    key: int | None = None

    @property
    def is_everything(self) -> bool:
        """True if nothing is beyond it."""
        return self.queues is None and self.number is None

    @property
    def home(self) -> Tenant:
        """Whose the jobs are that are submitted with it."""
        return DEFAULT if isinstance(self.tenant, Every) else self.tenant

    @property
    def number(self) -> int | None:
        """The number of its tenant; None: it is of all that there are."""
        return None if isinstance(self.tenant, Every) or self.is_alone else self.tenant.id

    @property
    def is_guest(self) -> bool:
        """True for a tenant beside the default one: what all tenants share is not its own to change."""
        return self.number not in {None, DEFAULT_TENANT}

    def has(self, queue: str | None) -> bool:
        """True if a queue is within; a job of which it is not known is within what has all queues alone."""
        return (self.queues is None or queue in self.queues) and (queue is None or self.knows(queue))

    def knows(self, queue: str) -> bool:
        """True if a queue is not another tenant's own, so that there is one of this name as far as this caller can tell."""
        return not self.others or owner_of(queue) not in self.others

    def owns(self, queue: str) -> bool:
        """True if a queue is its tenant's to change: its own, or one that is shared, which is the default tenant's."""
        if isinstance(self.tenant, Every):
            return True
        return self.knows(queue) and (not self.is_guest or owner_of(queue) == self.tenant.slug)

    def apart(self) -> Reach:
        """The same where it is not known whether there is another tenant."""
        return replace(self, is_alone=False) if self.is_alone else self

    def kept(self, key: str) -> str:
        """A client's key as it is kept."""
        return kept(self.home.id, key)

    def narrowed(self, queue: str | None) -> tuple[str | None, tuple[str, ...] | None]:
        """What is to be looked for where a queue was asked for, or any (None): the one queue, and else all of these; None: any.

        No queue at all stands for nothing.

        Example:
            >>> both = Reach(DEFAULT, frozenset({"mail", "video"}))
            >>> both.narrowed(None), both.narrowed("mail"), both.narrowed("billing"), EVERYTHING.narrowed("mail")
            ((None, ('mail', 'video')), ('mail', None), ('billing', ()), ('mail', None))
        """
        if queue is not None:
            return (queue, None) if self.has(queue) else (queue, ())
        if self.queues is None:
            return None, None
        if len(self.queues) == 1:
            return next(iter(self.queues)), None
        return None, tuple(sorted(self.queues))


#: All queues of all tenants.
EVERYTHING = Reach(Every.TENANT, None)
