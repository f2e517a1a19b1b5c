"""The handler of a trial, which the HANDLERS setting of the measured system names."""

from __future__ import annotations

import time
from typing import Any

from webapp.jobs import JobContext, handler


@handler("nap", chunk=1)
def nap(payload: dict[str, Any], context: JobContext) -> None:
    """Sleeps for the given seconds, one job to a message."""
    time.sleep(payload["seconds"])
