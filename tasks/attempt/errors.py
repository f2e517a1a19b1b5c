"""How an attempt fails, as exceptions. Their names are kept with attempts and dead letters, so they are those of `tasks.execution`."""

from __future__ import annotations

from webapp.jobs.error_report import ErrorReport
from webapp.jobs.error_text import trace_of
from webapp.jobs.errors import meant
from webapp.jobs.handlers import registry
from webapp.jobs.model import Claim

#: The module by whose name errors are kept: dead letters are searched by it, whatever release wrote them.
_KEPT_AS = "tasks.execution"


class HandlerMissing(Exception):
    """This worker has no handler of the job's name: an older or newer release took the job."""

    def __init__(self, name: str) -> None:
        super().__init__(f"this worker has no handler named {name!r} (it has: {', '.join(registry.names())})")


class AttemptFailed(Exception):
    """A claimed attempt ended with an error; carries what settling it needs."""

    def __init__(self, claim: Claim, error: BaseException, report: ErrorReport) -> None:
        super().__init__(report.type)
        self.claim = claim
        self.error = error
        self.report = report


class NotStorable(Exception):
    """PostgreSQL does not take what an attempt ended with."""

    def __init__(self, error: BaseException) -> None:
        # The driver's error, without SQLAlchemy's list of the statement's values.
        found = getattr(error, "orig", None) or error
        super().__init__(f"how the attempt ended cannot be stored ({type(found).__name__})")


for _error in (HandlerMissing, NotStorable):
    _error.__module__ = _KEPT_AS


def failure(claim: Claim, error: BaseException, raised: BaseException) -> AttemptFailed:
    """A failed attempt, from what was raised.

    Args:
        error: what is kept as the attempt's error.
        raised: whose traceback is kept.
    """
    try:
        return AttemptFailed(claim, meant(error), ErrorReport.of(error, trace_of(raised)))
    except Exception as broken:  # noqa: BLE001 - a handler's exception class may raise wherever it is looked at
        return AttemptFailed(claim, error, ErrorReport.undescribed(error, broken))


def unstorable(claim: Claim, error: BaseException) -> AttemptFailed:
    """A failed attempt, because PostgreSQL refused what it ended with."""
    told = NotStorable(error).with_traceback(error.__traceback__)
    return failure(claim, told, told)
