"""The body of a request: every view that takes one reads it here."""

from __future__ import annotations

import sys
from collections.abc import Callable

from flask import request
from werkzeug.exceptions import BadRequest, RequestEntityTooLarge, UnsupportedMediaType

from webapp.api.strictjson import read_json
from webapp.settings import Settings

#: Largest body of a batch, in bodies of single jobs, and at most, bytes.
BATCH_BODIES, MAX_BATCH_BYTES = 64, 16 * 1024**2
#: What a charset of JSON may be called.
_UTF8 = frozenset({"utf-8", "utf8", "us-ascii"})


def largest_batch(largest_body: int) -> int:
    """Most bytes of a batch, where a single job's body may have so many."""
    return min(BATCH_BODIES * largest_body, MAX_BATCH_BYTES)


def largest_of(settings: Settings) -> Callable[[str], int]:
    """The size of the largest body that a path takes, bytes."""
    of_one, of_many = settings.max_payload_bytes, largest_batch(settings.max_payload_bytes)
    return lambda path: of_many if has_many(path) else of_one


def has_many(path: str) -> bool:
    """True if the bodies of a path have many jobs.

    Example:
        >>> has_many("/jobs/batch"), has_many("/batches/01a2/jobs"), has_many("/batches/01a2/close")
        (True, True, False)
    """
    return path in {"/jobs/batch", "/batches", "/workflows"} or (
        path.startswith("/batches/") and path.endswith("/jobs")
    )


def json_body() -> object:
    """The request's body, parsed strictly.

    Raises:
        UnsupportedMediaType: it does not say it is JSON, or is compressed.
        RequestEntityTooLarge: it is larger than it may be.
        BadRequest: it ended before its length.
        BadBody: it is not JSON that can be kept.
    """
    _be_plain_json()
    return read_json(_received())


def json_body_if_any() -> object:
    """The request's body, parsed strictly; an empty object when there is none.

    Raises:
        UnsupportedMediaType, RequestEntityTooLarge, BadRequest, BadBody: as `json_body`.
    """
    body = _received()
    if not body.strip():
        return {}
    _be_plain_json()
    return read_json(body)


def _received() -> bytes:
    """The bytes, however they are framed: with a length or in chunks."""
    largest = request.max_content_length or sys.maxsize
    announced = request.content_length
    if announced is not None and announced <= largest:
        # The server's own stream hands a whole body over; werkzeug's would copy it in pieces.
        body: bytes = request.environ["wsgi.input"].read(announced)
        if len(body) < announced:
            raise BadRequest(
                f"the body ended after {len(body)} of the {announced} bytes that Content-Length announced"
            )
        return body
    if announced is None:
        # At its bound werkzeug stops to read, and what it has looks like all there is.
        request.max_content_length = largest + 1
        if len(body := request.get_data(cache=False)) <= largest:
            return body
    raise RequestEntityTooLarge(f"the body must be at most {largest} bytes")


def _be_plain_json() -> None:
    encoding = request.headers.get("Content-Encoding", "identity")
    if encoding.strip().lower() not in {"", "identity"}:
        raise UnsupportedMediaType(
            f"the body must not be compressed (given: Content-Encoding: {encoding[:100]!r})"
        )
    if not request.is_json:
        given = request.headers.get("Content-Type", "none")
        raise UnsupportedMediaType(f"Content-Type must be application/json; given: {given[:100]!r}")
    charset = request.mimetype_params.get("charset", "utf-8")
    if charset.lower() not in _UTF8:
        raise UnsupportedMediaType(f"the body must be in UTF-8 (given: charset={charset[:100]!r})")
