"""The broker: what is sent to Redis, within which time, and under which keys."""

from __future__ import annotations

import sys

#: redis-py loads OpenTelemetry's metrics wherever that is installed, for counters of its own that are off unless a program turns
#: them on: 70 modules and 3 MiB in every process. While redis-py is loaded here it finds none.
_SPARED = "opentelemetry"

if not {_SPARED, "redis"} & set(sys.modules):
    sys.modules[_SPARED] = None  # type: ignore[assignment] # what Python takes for "not installed"
    try:
        import redis  # noqa: F401 - loaded for all that import it later
    finally:
        del sys.modules[_SPARED]
