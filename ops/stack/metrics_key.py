"""The key with which the stack's Prometheus reads metrics, where the API asks for keys: it may do nothing else, and only from this machine."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from ops.stack import first_key
from ops.stack.first_key import MADE_BY_UP
from webapp.access.model import Mode, mode_of
from webapp.settings import Settings

#: Where it is kept, in the data folder.
FILE = Path("secrets") / "metrics.key"
#: What it is for.
NAME = "prometheus"


def is_needed(settings: Settings) -> bool:
    """True if a call without a key is answered 401, so a scrape is."""
    return mode_of(settings.api_auth, is_loopback=settings.is_on_loopback) is Mode.KEYS


def make(data: Path, environment: Mapping[str, str]) -> bool:
    """Makes the key, unless the one that is kept is good; returns whether one was made.

    Args:
        data: the data folder.
        environment: what the stack's processes get.

    Raises:
        NoFirstKey: a command failed.
    """
    file = data / FILE
    if file.exists() and _is_good(file.read_text(), environment):
        return False
    asked = ("--scope", "metrics:read", "--network", "127.0.0.0/8", "--network", "::1", "--never")
    made = ("key", "create", NAME, *asked, "--by", MADE_BY_UP)
    first_key.keep(file, lambda: first_key.run(environment, *made))
    return True


def _is_good(secret: str, environment: Mapping[str, str]) -> bool:
    """True if a secret is that of a key that is live; one of another database is not."""
    try:
        found = json.loads(first_key.run(environment, "key", "find", "--json", given=secret))
    except first_key.NoFirstKey:
        return False
    return bool(found["is_good"])
