"""Who may ask: requests for another host's name, and what a page of another site sends, are refused.

A browser sends requests for any page that it shows. A page can give its own name the address of this server (DNS
rebinding): then the browser's `Host` is that name. And a page can post a form without a body anywhere: then
`Sec-Fetch-Site` or `Origin` say where it is from. Programs send neither header, and are not concerned.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from ipaddress import ip_address
from urllib.parse import urlsplit

from flask import Flask, current_app, request

from webapp.access.errors import FromAnotherSite, HostNotServed
from webapp.settings import Settings

#: A host's name or address, and a port.
_HOST = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?", re.ASCII)
#: Methods that change nothing.
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
#: Where browsers say a request is from when no other site is involved.
_OWN = frozenset({"same-origin", "none"})
#: What orchestrators and Prometheus ask, by a pod's address.
_PROBED = frozenset({"/health", "/health/ready", "/metrics"})


def init_app(app: Flask, settings: Settings) -> None:
    """Refuses them before anything else is done for a request."""
    app.extensions["hosts"] = settings.hosts_served
    app.before_request(_refuse)


def _refuse() -> None:
    """Refuses a request that is for another host, or from a page of another site.

    Raises:
        HostNotServed: it is for a host that this server does not answer for.
        FromAnotherSite: a page of another site would change something.
    """
    hosts: Collection[str] = current_app.extensions["hosts"]
    given = request.environ.get("HTTP_HOST")
    if hosts and given is not None and not is_served(given, hosts, probed=request.path in _PROBED):
        raise HostNotServed(given)
    if request.method not in _SAFE:
        origin = foreign_origin(
            request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin"), given or "", hosts
        )
        if origin is not None:
            raise FromAnotherSite(origin)


def name_of(host: str) -> str | None:
    """The name in a `Host` header, in lower case and without its port; None when it is malformed.

    Example:
        >>> name_of("API.example.com:8000"), name_of("[::1]"), name_of("a b")
        ('api.example.com', '::1', None)
    """
    found = _HOST.fullmatch(host)
    return found[1].strip("[]").lower().removesuffix(".") if found else None


def is_served(host: str, hosts: Collection[str], *, probed: bool = False) -> bool:
    """True when a `Host` header names one of the hosts; `.example.com` stands for all names below it.

    Args:
        host: the header.
        hosts: names and addresses.
        probed: whether an address will do, unless this host serves itself alone. No page can make a browser send one that is
            not in its own URL.
    """
    name = name_of(host)
    if name is None:
        return False
    if name in hosts or any(one.startswith(".") and name.endswith(one) for one in hosts):
        return True
    return probed and not all(map(_is_loopback, hosts)) and _is_address(name)


def foreign_origin(site: str | None, origin: str | None, host: str, hosts: Collection[str]) -> str | None:
    """What a request says of the other site that it comes from; None when it comes from no other.

    Args:
        site: the header `Sec-Fetch-Site`.
        origin: the header `Origin`; older browsers send only this.
        host: the header `Host`.
        hosts: names that this server has.
    """
    if site is not None:
        return None if site.strip().lower() in _OWN else f"Sec-Fetch-Site: {site}"
    if origin is None:
        return None
    try:
        parts = urlsplit(origin)
        name = parts.hostname or ""
        # A proxy may have put its own name into `Host`. Of this host's ports, each is another site's.
        own = parts.netloc.lower() == host.lower() != "" or (name in hosts and not _is_loopback(name))
    except ValueError:
        own = False
    return None if own else f"Origin: {origin}"


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _is_loopback(name: str) -> bool:
    return name == "localhost" or (_is_address(name) and ip_address(name).is_loopback)
