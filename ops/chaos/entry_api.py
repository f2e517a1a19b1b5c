"""What the harness's API is started from: `gunicorn ops.chaos.entry_api:app`."""

from __future__ import annotations

from ops.chaos import switches
from wsgi import app

switches.throw()

__all__ = ["app"]
