"""What the harness's workers and beat are started from: `celery -A ops.chaos.entry_tasks`."""

from __future__ import annotations

from ops.chaos import switches
from tasks.celery import app

switches.throw()

__all__ = ["app"]
