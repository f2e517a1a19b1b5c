"""The httpbin that `simulated` jobs call, without its warning at each start that an optional page is not installed."""

from __future__ import annotations

import logging

# Before the import: httpbin warns while it is imported.
logging.getLogger("httpbin.core").setLevel(logging.ERROR)

from httpbin import app  # noqa: E402

__all__ = ["app"]
