"""The sweep that makes the callbacks of jobs that ended long ago: those that `deliver_callbacks` was too late for.

That one looks at the last day each second. Where no maintenance worker has run for longer, this one finds what is left, and looks
at all of history for it.
"""

from __future__ import annotations

from tasks.runtime import runtime
from tasks.sweeps import callbacks
from tasks.sweeps.base import sweep
from webapp.settings import sweeps

PLAN = sweeps.LATE_CALLBACKS


@sweep(PLAN)
def late_callbacks() -> None:
    """Makes the callbacks of jobs that ended, whenever that was."""
    callbacks.run_callbacks(runtime(), PLAN.batch, lately=None)
