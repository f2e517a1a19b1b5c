"""The span of a request, and the `traceparent` that it came with."""

from __future__ import annotations

from flask import Response, g, request

from webapp.infra.telemetry import traceparent, traces

#: Views that are asked every few seconds by machines, and whose spans no one reads.
_UNTRACED = {"health", "metrics"}
#: Methods with a meaning of their own; others are named `HTTP`, as clients could make up any number.
_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
#: Longest part of a path or a client's name that is kept, characters.
_LONGEST = 500
#: Where the errors begin that are the server's.
_SERVER_ERROR = 500


def open_request(request_id: str) -> dict[str, str]:
    """Begins the request's span, under the one that the client sent; returns what its log lines say of it.

    With traces off what the client sent is kept for the jobs of this request all the same.
    """
    sent = traceparent.read(request.headers.get("traceparent"))
    span = None
    if traces.are_on() and request.blueprint not in _UNTRACED:
        span = traces.request(_name(), sent, {**_attributes(), "djps.request.id": request_id})
    g.span = span
    place = span.place if span is not None else sent
    g.place = traceparent.enter(place) if place is not None else None
    if span is None:
        return {}
    # The server's line about the request is written when its span is over.
    request.environ["djps.trace"] = span.place.fields
    return span.place.fields


def note_answer(response: Response) -> None:
    """Says how the request was answered."""
    if (span := g.get("span")) is not None:
        span.note("http.response.status_code", response.status_code)
        if response.status_code >= _SERVER_ERROR:
            span.fail(str(response.status_code))


def close_request(error: BaseException | None) -> None:
    """Ends the span; what comes next in this thread is no part of it."""
    if (place := g.pop("place", None)) is not None:
        traceparent.leave(place)
    if (span := g.pop("span", None)) is not None:
        if error is not None:
            span.fail(type(error).__qualname__)
        span.end()


def _route() -> str | None:
    return request.url_rule.rule if request.url_rule is not None else None


def _name() -> str:
    method = request.method if request.method in _METHODS else "HTTP"
    return f"{method} {route}" if (route := _route()) else method


def _attributes() -> dict[str, str | int | None]:
    """By OpenTelemetry's conventions for HTTP; without the query, which may hold anything."""
    known = request.method in _METHODS
    return {
        "http.request.method": request.method if known else "_OTHER",
        "http.request.method_original": None if known else request.method[:_LONGEST],
        "http.route": _route(),
        "url.path": request.path[:_LONGEST],
        "url.scheme": request.scheme,
        "client.address": request.remote_addr,
        "network.protocol.version": request.environ.get("SERVER_PROTOCOL", "").removeprefix("HTTP/") or None,
        "user_agent.original": request.user_agent.string[:_LONGEST] or None,
    }
