"""What holds on this machine: where the stack of `ops up` is, and that loopback needs no proxy. Pure standard library."""

from __future__ import annotations

import json
import os
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

#: The folder that a relative data folder stands in, for `ops` as for all others.
ROOT = Path(__file__).resolve().parents[2]


def note_of(data_dir: Path) -> Path:
    """The file in which the stack of a data folder says where it is."""
    return ROOT / data_dir / "run" / "stack.json"


def read_note(data_dir: Path) -> dict[str, Any]:
    """What the stack of a data folder says of itself; empty when it is down or cannot be read."""
    try:
        found = json.loads(note_of(data_dir).read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


#: How programs are told of hosts to reach without a proxy; some read one of the two, some prefer the first.
NAMES = ("no_proxy", "NO_PROXY")
LOOPBACK = ("localhost", "127.0.0.1", "127.0.0.0/8", "::1")


def go_around_proxies(environment: MutableMapping[str, str] = os.environ) -> None:
    """Has this process, and those it starts, reach loopback without a proxy, where proxies are set at all.

    Example:
        >>> found = {"HTTP_PROXY": "http://proxy:3128", "NO_PROXY": "intranet"}
        >>> go_around_proxies(found)
        >>> found["no_proxy"]
        'intranet,localhost,127.0.0.1,127.0.0.0/8,::1'
    """
    if not any(name.lower().endswith("_proxy") and name not in NAMES for name in environment):
        return
    given = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
    hosts = [host.strip() for host in given.split(",") if host.strip()]
    merged = ",".join(dict.fromkeys([*hosts, *LOOPBACK]))
    for name in NAMES:
        environment[name] = merged
