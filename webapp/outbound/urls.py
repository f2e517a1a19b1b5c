"""URLs of outgoing calls, read strictly: what is unusual is refused, so that it cannot be read in another way.

Names and addresses in disguise (`0x7f.1`, `2130706433`, `0177.0.0.1`, `127.1`, full-width digits) are refused
by their form, before anything is resolved. Pure, but for `callable_url`, which looks at the settings.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from urllib.parse import SplitResult, urlsplit

from webapp.outbound.addresses import why_refused
from webapp.settings import Settings, current
from webapp.settings.targets import Address, Target, read_ports, read_targets

#: Longest URL, characters.
MAX_URL = 2_048
_DEFAULT_PORTS = {"http": 80, "https": 443}
_PRINTABLE = re.compile(r"[\x21-\x7e]+")
_NAME = re.compile(r"(?=.{1,253}\Z)[a-z0-9_][a-z0-9_-]{0,62}(?:\.[a-z0-9_][a-z0-9_-]{0,62})*")
#: What `inet_aton` may take for a number: the last part of a name must not look like one.
_NUMBER = re.compile(r"\d+|0x[0-9a-f]*")


class TargetRefused(ValueError):
    """A URL or what it resolves to must not be called."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What may be called beyond the public internet, and at which ports.

    Args:
        ports: allowed for every host.
        targets: internal hosts and networks that are allowed too.
    """

    ports: frozenset[int]
    targets: tuple[Target, ...] = ()

    @classmethod
    def of(cls, settings: Settings, *, is_guest: bool = False) -> Rules:
        """Those that HTTP_ALLOWED_PORTS and HTTP_ALLOWED_TARGETS set.

        Args:
            is_guest: for a tenant beside the default one: internal targets are not its to call.
        """
        ports = read_ports(settings.http_allowed_ports)
        return cls(ports, () if is_guest else read_targets(settings.http_allowed_targets))

    def names(self, host: str, port: int) -> bool:
        """True if a host is allowed by name, wherever it leads."""
        return any(target.names(host, port) for target in self.targets)

    def why_refused(self, host: str, address: Address, port: int) -> str | None:
        """What forbids a host's address; None when it may be called."""
        if self.names(host, port) or any(target.holds(address, port) for target in self.targets):
            return None
        return why_refused(address)

    def has_port(self, host: str, address: Address | None, port: int) -> bool:
        """True if a port is allowed, for everyone or for this target."""
        return port in self.ports or any(
            target.port == port
            and (
                target.host == host
                if isinstance(target.host, str)
                else address is None or address in target.host
            )
            for target in self.targets
        )


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A URL in its parts.

    Args:
        scheme: `http` or `https`.
        host: a name in small letters, or an address; without brackets and final dot.
        address: the host, when it is an address.
        target: path and query, as they are sent.
    """

    scheme: str
    host: str
    port: int
    target: str
    address: Address | None = None

    @property
    def authority(self) -> str:
        """What the Host header says."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def origin(self) -> str:
        """Scheme, host and port: what credentials are bound to, and all that is ever logged of a URL."""
        return f"{self.scheme}://{self.authority}"


def read_url(url: str, rules: Rules) -> Endpoint:
    """Reads a URL that is to be called, and judges what can be judged without resolving it.

    Raises:
        TargetRefused: `parse_url` refuses it, or it names a port or an address that is not allowed.

    Example:
        >>> read_url("https://example.org/hook?x=1", Rules(frozenset({443}))).origin
        'https://example.org'
    """
    found = parse_url(url)
    if not rules.has_port(found.host, found.address, found.port):
        allowed = ", ".join(str(one) for one in sorted(rules.ports))
        raise TargetRefused(f"port {found.port} is not allowed (HTTP_ALLOWED_PORTS: {allowed})")
    _judge_literal(found.host, found.address, found.port, rules)
    return found


def parse_url(url: str) -> Endpoint:
    """Reads a URL, whatever the settings allow to be called.

    Raises:
        TargetRefused: it is not an http(s) URL in its usual form, or has user or password. The message never repeats
            path, query or password.
    """
    if not isinstance(url, str) or not 1 <= len(url) <= MAX_URL:
        raise TargetRefused(f"must be a URL of at most {MAX_URL} characters")
    if not _PRINTABLE.fullmatch(url) or "\\" in url:
        raise TargetRefused(
            "must be printable ASCII without spaces or backslashes (write xn-- names and %-escapes)"
        )
    parts = _split(url)
    if parts.scheme not in _DEFAULT_PORTS:
        raise TargetRefused(f"must begin with http:// or https://; its scheme is {parts.scheme[:20]!r}")
    if "@" in parts.netloc:
        raise TargetRefused("must not carry a user or password; use a header")
    host, address = _read_host(parts)
    port = _port_of(parts)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Endpoint(parts.scheme, host, port, target, address)


def _split(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError:
        raise TargetRefused("is not a URL: its host cannot be read") from None


def _port_of(parts: SplitResult) -> int:
    try:
        port = parts.port
    except ValueError:
        raise TargetRefused("has a port that is no number from 1 to 65535") from None
    return _DEFAULT_PORTS[parts.scheme] if port is None else port


def _read_host(parts: SplitResult) -> tuple[str, Address | None]:
    """The host as a name or an address; whatever is neither in its usual form is refused."""
    host = (parts.hostname or "").lower()
    bracketed = parts.netloc.startswith("[")
    if bracketed or ":" in host:
        try:
            found = IPv6Address(host)
        except AddressValueError:
            raise TargetRefused("has an IPv6 address that cannot be read") from None
        return str(found), found
    host = host.removesuffix(".")
    if _NUMBER.fullmatch(host.rpartition(".")[2]):
        try:
            literal = IPv4Address(host)
        except AddressValueError:
            raise TargetRefused("has an IPv4 address that is not four decimal numbers") from None
        return str(literal), literal
    if not _NAME.fullmatch(host):
        raise TargetRefused("has no host, or one that is no host name")
    return host, None


def _judge_literal(host: str, address: Address | None, port: int, rules: Rules) -> None:
    """Refuses what needs no resolving to be known as internal."""
    if address is not None:
        reason = rules.why_refused(host, address, port)
        if reason is not None:
            raise TargetRefused(f"{host} must not be called: the address is {reason}")
    elif (host == "localhost" or host.endswith(".localhost")) and not (
        # Where a network is allowed, the name is judged by the addresses that it leads to.
        rules.names(host, port) or any(not isinstance(target.host, str) for target in rules.targets)
    ):
        raise TargetRefused(f"{host} must not be called: the name is loopback")


def written_url(url: str) -> str:
    """Gives a URL back that is written as it should be; what the settings allow is another question.

    Raises:
        TargetRefused: see `parse_url`.
    """
    parse_url(url)
    return url


def callable_url(url: str) -> str:
    """Gives a URL back that may be called as far as can be told without resolving a name; the call judges the rest.

    Raises:
        TargetRefused: it breaks a rule of `read_url` under the settings of this process.
    """
    read_url(url, Rules.of(current()))
    return url
