"""One HTTP call, redirects included, to addresses that the guard has judged.

urllib3's connections are used as they are: they connect to an address, and are told apart from it what the
certificate must say. Nothing is taken from the environment: no proxy, no `.netrc`, no cookies.
"""

from __future__ import annotations

import http.client
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache
from types import TracebackType
from typing import Self
from urllib.parse import urljoin

import certifi
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError
from urllib3.response import BaseHTTPResponse

from webapp.outbound.guard import Guard, NotResolved
from webapp.outbound.urls import Endpoint, TargetRefused, read_url
from webapp.settings.targets import Address

#: Redirects that are followed.
MAX_REDIRECTS = 5
#: Longest wait for a connection to one address, seconds.
CONNECT_TIMEOUT = 10.0
#: Largest part of an error's text that is kept, characters.
_MAX_REASON = 200

_REDIRECTS = {301, 302, 303, 307, 308}
#: Redirects after which browsers and servers expect a GET without a body.
_TURN_TO_GET = {301: {"POST"}, 302: {"POST"}, 303: {"POST", "PUT", "PATCH", "DELETE", "OPTIONS"}}
#: Headers of the client that another origin may see; every other one may be a credential.
_HARMLESS = {"accept", "accept-language", "content-language", "content-type", "user-agent"}
#: Headers that tell of a body.
_OF_BODY = {"content-type", "content-language", "content-encoding"}

#: What urllib3 and http.client raise when a call fails; a time limit of the job is none of these.
_FAILURES = (HTTPError, http.client.HTTPException, OSError, ValueError)

# It warns of odd headers with the whole URL, whose query may hold a secret.
logging.getLogger("urllib3.connection").setLevel(logging.ERROR)


class CallFailed(Exception):
    """No whole answer came; another try may fare better. The message names origin and reason."""

    def __init__(self, origin: str, reason: str) -> None:
        super().__init__(f"{origin}: {reason}")
        self.origin = origin


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be sent.

    Args:
        headers: the client's own, which belong to the origin of `url`.
        own: sent wherever the call leads.
        sign: makes more headers from the body; sent to the first origin only. A signature that went elsewhere
            could be shown to the true receiver by a stranger.
    """

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    own: Mapping[str, str] = field(default_factory=dict)
    sign: Callable[[bytes], Mapping[str, str]] | None = None

    def all_headers(self, host: str) -> dict[str, str]:
        """The headers as they are sent; names do not depend on case, and ours win."""
        signed = self.sign(self.body or b"") if self.sign else {}
        taken = {name.lower() for name in (*self.own, *signed)} - {"user-agent"}
        given = {name: value for name, value in self.headers.items() if name.lower() not in taken}
        own = dict(self.own)
        if any(name.lower() == "user-agent" for name in given):
            own.pop("User-Agent", None)
        return {"Host": host, "Accept-Encoding": "identity", **own, **given, **signed}


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back.

    Args:
        headers: names in small letters.
        body: as it was sent, never unpacked.
        truncated: there was more than is read.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    truncated: bool


class Caller:
    """Makes calls.

    Args:
        guard: says which addresses may be called.
        max_bytes: most that is read of an answer's body.
        tls: verifies certificates; the system's and certifi's authorities when None.
    """

    def __init__(self, guard: Guard, *, max_bytes: int, tls: ssl.SSLContext | None = None) -> None:
        self._guard = guard
        self._max_bytes = max_bytes
        self._tls = tls

    def call(self, request: Request, timeout: float) -> Answer:
        """Sends a request, follows redirects, and returns the last answer.

        Args:
            timeout: seconds for everything: names, connections, redirects, and the last byte of the answer.

        Raises:
            TargetRefused: the URL, an address it leads to, or a redirect is not allowed; nothing was sent there.
            CallFailed: no whole answer came in time.
        """
        end = time.monotonic() + timeout
        for _ in range(MAX_REDIRECTS + 1):
            endpoint = read_url(request.url, self._guard.rules)
            answer = self._exchange(endpoint, request, end)
            location = answer.headers.get("location")
            if answer.status not in _REDIRECTS or not location:
                return answer
            request = redirected(request, endpoint, answer.status, location)
        raise TargetRefused(f"more than {MAX_REDIRECTS} redirects, the last from {endpoint.origin}")

    def _exchange(self, endpoint: Endpoint, request: Request, end: float) -> Answer:
        try:
            addresses = self._guard.addresses(endpoint, end - time.monotonic())
        except NotResolved as error:
            raise CallFailed(endpoint.origin, str(error)) from None
        with _Cutoff(end) as cutoff:
            try:
                connection = self._connect(endpoint, addresses, end)
                try:
                    cutoff.watch(connection.sock)
                    answer = self._talk(connection, endpoint, request, end)
                finally:
                    connection.close()
            except _FAILURES as error:
                reason = "no answer in time" if _is_late(error, end) else f"{type(error).__name__}: {error}"
                raise CallFailed(endpoint.origin, reason[:_MAX_REASON]) from None
        # A body without a length ends where the connection does, so a cut one looks whole.
        if cutoff.struck:
            raise CallFailed(endpoint.origin, "no whole answer in time")
        return answer

    def _connect(self, endpoint: Endpoint, addresses: Sequence[Address], end: float) -> HTTPConnection:
        """Connects to the first address that takes the connection."""
        failure: Exception = TimeoutError("no time was left to connect")
        for address in addresses:
            left = end - time.monotonic()
            if left <= 0:
                break
            connection = self._connection(endpoint, address, min(left, CONNECT_TIMEOUT))
            try:
                connection.connect()
                return connection
            except (HTTPError, OSError) as error:
                connection.close()
                failure = error
        raise failure

    def _connection(self, endpoint: Endpoint, address: Address, timeout: float) -> HTTPConnection:
        if endpoint.scheme == "http":
            return HTTPConnection(str(address), endpoint.port, timeout=timeout)
        # The server is asked for by its name, and its certificate must carry that name, not the address's.
        return HTTPSConnection(
            str(address),
            endpoint.port,
            timeout=timeout,
            ssl_context=self._tls or authorities(),
            server_hostname=endpoint.host,
        )

    def _talk(self, connection: HTTPConnection, endpoint: Endpoint, request: Request, end: float) -> Answer:
        connection.timeout = max(end - time.monotonic(), 0.001)
        connection.request(
            request.method,
            endpoint.target,
            body=request.body,
            headers=request.all_headers(endpoint.authority),
            preload_content=False,
            decode_content=False,
        )
        response = connection.getresponse()
        try:
            body = self._read(response)
        finally:
            response.close()
        headers = {name.lower(): value for name, value in response.headers.items()}
        return Answer(response.status, headers, body[: self._max_bytes], len(body) > self._max_bytes)

    def _read(self, response: BaseHTTPResponse) -> bytes:
        """At most one byte more than is kept: it tells that there is more."""
        body = b""
        # A body that is shorter than its Content-Length shows only at the read that finds nothing more.
        while len(body) <= self._max_bytes and (
            part := response.read(self._max_bytes + 1 - len(body), decode_content=False)
        ):
            body += part
        return body


def redirected(request: Request, endpoint: Endpoint, status: int, location: str) -> Request:
    """The request that follows a redirect. Pure.

    301 and 302 turn a POST into a GET, 303 turns everything but HEAD into one, 307 and 308 repeat the request.
    Another origin gets no header that may be a credential, and no signature.

    Raises:
        TargetRefused: it leads from https to http, or the new URL is not allowed by its form.
    """
    try:
        url = urljoin(f"{endpoint.origin}{endpoint.target}", location)
    except ValueError:
        raise TargetRefused(f"the redirect from {endpoint.origin} is no URL") from None
    if endpoint.scheme == "https" and url[:8].lower() != "https://":
        raise TargetRefused(f"the redirect from {endpoint.origin} leaves https")
    changed = replace(request, url=url)
    if request.method in _TURN_TO_GET.get(status, set()):
        kept = {name: value for name, value in changed.headers.items() if name.lower() not in _OF_BODY}
        changed = replace(changed, method="GET", body=None, headers=kept)
    same = url.startswith((f"{endpoint.origin}/", f"{endpoint.origin}?")) or url == endpoint.origin
    if not same:
        kept = {name: value for name, value in changed.headers.items() if name.lower() in _HARMLESS}
        changed = replace(changed, headers=kept, sign=None)
    return changed


class _Cutoff:
    """Shuts a connection down when time is over.

    A socket's timeout begins anew with every byte, so a server that sends one now and then would be listened
    to for ever.
    """

    def __init__(self, end: float) -> None:
        self._timer = threading.Timer(max(end - time.monotonic(), 0.0), self._strike)
        self._timer.daemon = True
        self._socket: socket.socket | None = None
        self.struck = False

    def watch(self, connected: socket.socket) -> None:
        """Begins to watch over a connection."""
        self._socket = connected
        if self.struck:
            self._strike()

    def _strike(self) -> None:
        self.struck = True
        if self._socket is not None:
            # It may have been closed in this moment.
            with suppress(OSError):
                # The plain method: that of a TLS socket would take the TLS from under the thread that is reading.
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()


def _is_late(error: Exception, end: float) -> bool:
    return isinstance(error, TimeoutError) or time.monotonic() >= end


@cache
def authorities() -> ssl.SSLContext:
    """Verifies certificates by the authorities of this system (SSL_CERT_FILE adds to them) and of certifi."""
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context
