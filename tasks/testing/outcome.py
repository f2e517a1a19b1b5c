"""What becomes of a job after one attempt, as a test sees it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from tasks.attempt.progress import Progress
from tasks.testing.submitted import Submitted
from webapp.jobs.error_report import ErrorReport


class Line(NamedTuple):
    """A line that the handler logged with `context.logger`.

    Args:
        level: `INFO`, `WARNING`, ...
        message: with its arguments put in.
        fields: what `extra` added.
    """

    level: str
    message: str
    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What every attempt leaves.

    Args:
        progress: what `context.progress` was told, in order; a client sees two a second at most, and the last one.
        lines: what was logged, in order.
        submitted: the jobs that it submitted, in order; without those that were there before.
    """

    progress: tuple[Progress, ...] = ()
    lines: tuple[Line, ...] = ()
    submitted: tuple[Submitted, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed(Outcome):
    """The handler returned: the job is `completed`.

    Args:
        result: as clients get it: JSON, read back.
        result_note: why the result was not kept; None where it was.
    """

    result: Any = None
    result_note: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Snoozed(Outcome):
    """The handler raised `Snooze`: the job comes back, and no retry is used up.

    Args:
        after: seconds until it does.
    """

    after: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Unsuccessful(Outcome):
    """An attempt that ended with an error.

    Args:
        exception: what ended it.
        error: what the attempt's record keeps of that.
    """

    exception: BaseException
    error: ErrorReport


@dataclass(frozen=True, slots=True, kw_only=True)
class Retried(_Unsuccessful):
    """The attempt failed and there are retries left: the job is queued again.

    Args:
        after: seconds until it is due.
    """

    after: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed(_Unsuccessful):
    """The attempt failed and was the last one: the job is `failed`, and in the dead letter queue."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Discarded(_Unsuccessful):
    """The handler raised `Discard`: the job is `failed`, and in the dead letter queue, whatever retries were left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancelled(_Unsuccessful):
    """The job's cancellation was asked, and the attempt did not complete: the job is `cancelled`."""
