"""Tests of handlers: runs one attempt of a job in the test's own process, with no server, and says what becomes of the job."""

from __future__ import annotations

from tasks.testing.attempt import run
from tasks.testing.outcome import Cancelled, Completed, Discarded, Failed, Line, Outcome, Retried, Snoozed
from tasks.testing.submitted import Submitted

__all__ = [
    "Cancelled",
    "Completed",
    "Discarded",
    "Failed",
    "Line",
    "Outcome",
    "Retried",
    "Snoozed",
    "Submitted",
    "run",
]
