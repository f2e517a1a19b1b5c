"""The handler of the single path, which the HANDLERS setting of a measured system names."""

from __future__ import annotations

from typing import Any

from webapp.jobs import JobContext, handler


@handler("noop-single", chunk=1)
def noop_single(payload: dict[str, Any], context: JobContext) -> None:
    """Does nothing, one job to a message."""
