"""What flow control refuses, and why. Each says it in one sentence."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from webapp.flow.model import Target


class FlowError(Exception):
    """The base of every error that flow control raises."""


class UnknownTarget(FlowError):
    """There is no such queue or task."""

    def __init__(self, target: Target, known: Iterable[str]) -> None:
        super().__init__(f"there is no {target.words}; there are {', '.join(sorted(known))}")
        self.target = target


class StaleVersion(FlowError):
    """It was changed since the version that the request is about."""

    def __init__(self, target: Target, given: str, version: int) -> None:
        super().__init__(
            f'{target.words} was changed meanwhile: If-Match must be its ETag, "{version}"; given: {given[:100]}'
        )
        self.target = target
        self.version = version
