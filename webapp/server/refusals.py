"""What the server says to a request that no view will see: a problem document, as the views' are."""

from __future__ import annotations

import json
from collections.abc import Callable
from email.utils import formatdate
from http import HTTPStatus
from typing import Any

from gunicorn.http import errors

from webapp.server.limits import MAX_HEAD

#: Most that is repeated of what a client sent, characters.
_SHOWN = 200


def _shown(given: object) -> str:
    return repr(str(given)[:_SHOWN])


def _plain(words: str) -> str:
    return words[:_SHOWN].encode("ascii", "backslashreplace").decode().replace("\n", " ").replace("\r", " ")


_WORDS = Callable[[Any, Any], str]
#: Kinds of errors, the narrower ones first; what is of none of them is the server's fault.
_KINDS: tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], int, _WORDS], ...] = (
    (
        # What the application wanted to send, though they are kinds of what clients send wrongly.
        (errors.InvalidResponseHeader, errors.InvalidResponseHeaderName, errors.ConfigurationProblem),
        500,
        lambda _error, _cfg: "an error inside DJPS; the log names it by this request_id",
    ),
    (
        errors.LimitRequestLine,
        414,
        lambda _error, cfg: f"the request line must be at most {cfg.limit_request_line} bytes",
    ),
    (
        errors.LimitRequestHeaders,
        431,
        lambda _error, cfg: (
            f"a request must have at most {cfg.limit_request_fields} headers, each of at most"
            f" {cfg.limit_request_field_size} bytes, and a head of at most {MAX_HEAD} bytes"
        ),
    ),
    (
        errors.UnsupportedTransferCoding,
        501,
        lambda error, _cfg: f"the only transfer coding that is taken is chunked; given: {_shown(error.hdr)}",
    ),
    (
        errors.ExpectationFailed,
        417,
        lambda error, _cfg: (
            f"the only expectation that is met is 100-continue; given: {_shown(error.expect)}"
        ),
    ),
    (errors.ForbiddenProxyRequest, 403, lambda error, _cfg: _plain(str(error))),
    (errors.ParseException, 400, lambda error, _cfg: _plain(str(error))),
)


def judge(error: BaseException, cfg: Any) -> tuple[int, str]:
    """The status of an error, and what is wrong in words.

    Args:
        error: what gunicorn, or this package, said of a request.
        cfg: gunicorn's configuration.
    """
    for kinds, status, words in _KINDS:
        if isinstance(error, kinds):
            return status, words(error, cfg)
    return HTTPStatus.INTERNAL_SERVER_ERROR, "an error inside DJPS; the log names it by this request_id"


def document(
    status: int, detail: str, request_id: str, *, retry_after: int | None = None, with_body: bool = True
) -> bytes:
    """A whole answer, after which the connection is closed.

    Args:
        status: of the answer.
        detail: what is wrong, in words.
        request_id: names the request in the log.
        retry_after: when to try again, seconds.
        with_body: False for an answer to HEAD.
    """
    title = HTTPStatus(status).phrase
    body = json.dumps(
        {"type": "about:blank", "title": title, "status": status, "detail": detail, "request_id": request_id}
    )
    lines = [
        f"HTTP/1.1 {status} {title}",
        "Server: gunicorn",
        f"Date: {formatdate(usegmt=True)}",
        "Connection: close",
        "Content-Type: application/problem+json",
        f"Content-Length: {len(body) + 1}",
        f"X-Request-ID: {request_id}",
        "X-Content-Type-Options: nosniff",
        *([f"Retry-After: {retry_after}"] if retry_after is not None else []),
    ]
    return ("\r\n".join(lines) + "\r\n\r\n" + (body + "\n" if with_body else "")).encode("ascii")
