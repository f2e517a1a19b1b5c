"""What flow control refuses, and why. Each says it in one sentence."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from webapp.flow.tenant import OF_TENANT

if TYPE_CHECKING:
    from webapp.flow.model import KeyTarget, Target


#: What makes one that there is not yet.
_HOW_TO_MAKE = {
    "queues": "to make it, name it in QUEUES, or as the queue of a handler, and start API and workers anew",
    "tasks": "to make it, write a handler of this name, and start API and workers anew",
}
#: Most workers that a sentence names.
MOST_NAMED = 5


class FlowError(Exception):
    """The base of every error that flow control raises."""


class UnknownTarget(FlowError):
    """There is no such queue or task."""

    def __init__(self, target: Target, known: Iterable[str]) -> None:
        names = ", ".join(sorted(known))
        there_are = f"there are {names}; " if names else ""
        super().__init__(f"there is no {target.words}; {there_are}{_HOW_TO_MAKE[target.kind]}")
        self.target = target


class TasksOutOfReach(FlowError):
    """A task runs in all queues, so who reaches only some changes nothing of it."""

    def __init__(self, target: Target, queues: Iterable[str]) -> None:
        super().__init__(
            f"{target.words} runs in all queues, and this key is for {', '.join(sorted(queues))} alone"
        )


class Shared(FlowError):
    """Tenants share it, so one of them changes nothing of it."""

    def __init__(self, target: Target, slug: str) -> None:
        super().__init__(
            f"{target.words} is shared by tenants, and is changed by those of the default one; a queue of your own has a name that"
            f" begins with {slug}{OF_TENANT}"
        )


class StaleVersion(FlowError):
    """It was changed since the version that the request is about."""

    def __init__(self, target: Target | KeyTarget, given: str, version: int) -> None:
        super().__init__(
            f'{target.words} was changed meanwhile: If-Match must be its ETag, "{version}"; given: {given[:100]}'
        )
        self.target = target
        self.version = version


class OlderRelease(FlowError):
    """Workers of a release that knows no limits are alive: they would exceed them."""

    def __init__(self, workers: Iterable[str]) -> None:
        self.workers = tuple(workers)
        named = ", ".join(self.workers[:MOST_NAMED])
        super().__init__(
            f"limits can be set once no worker of an older release is alive: restart {named}"
            + (f" and {len(self.workers) - MOST_NAMED} more" if len(self.workers) > MOST_NAMED else "")
        )


class NotInOrder(FlowError):
    """A key would have more jobs run at once than a strict order has."""

    def __init__(self, target: KeyTarget, concurrency: int) -> None:
        super().__init__(
            f"{target.words} cannot have a concurrency of {concurrency} where keys have an order: their jobs run one at a time"
        )


class WorkersUnknown(FlowError):
    """Which workers are alive cannot be said, so neither whether all of them know limits."""

    def __init__(self) -> None:
        super().__init__(
            "Redis does not say which workers are alive, so whether all of them know limits; try again"
        )
