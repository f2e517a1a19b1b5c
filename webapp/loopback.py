"""Calls to this machine go around proxies: a proxy's own loopback is another machine."""

from __future__ import annotations

import os
from collections.abc import MutableMapping

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
