"""The `Idempotency-Key` header (draft-ietf-httpapi-idempotency-key-header), beside the field of the body."""

from __future__ import annotations

import re
from typing import Any

from werkzeug.exceptions import BadRequest

from webapp.jobs.tables import MAX_KEY_LENGTH

HEADER = "Idempotency-Key"
#: Says of an answer that it is about a job which an earlier request made.
REPLAYED = "Idempotency-Replayed"
#: Says of an answer that no job was made, as the one that it is about holds the unique key.
HELD = "DJPS-Unique-Held"
#: Says of an answer that no job was made, as the one that it is about is what was asked for from now on.
REPLACED = "DJPS-Unique-Replaced"
#: What OpenAPI says of these.
ANSWER_HEADERS: dict[str, dict[str, Any]] = {
    REPLAYED: {
        "schema": {"const": "true"},
        "description": "Only with 200: the idempotency key was used for this request before, and this is its job.",
    },
    HELD: {
        "schema": {"const": "true"},
        "description": "Only with 200: no job was made, and this is the one that holds `unique.key`.",
    },
    REPLACED: {
        "schema": {"const": "true"},
        "description": "Only with 200: no job was made; the one that holds `unique.key` was never started, and is what was asked for.",
    },
}

#: A string as RFC 9651 has it: printable ASCII in quotes, with \" and \\ for those two; parameters are passed over.
_QUOTED = re.compile(r'"((?:[\x20-\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"(?:\s*;[\x20-\x7e]*)?')
_BARE = re.compile(r"[\x21\x23-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")


def key_in(header: str) -> str:
    """The key in a header's value: in quotes, as the draft has it, or bare, as many clients send it.

    Raises:
        BadRequest: it is neither, or not 1 to 255 characters long.

    Example:
        >>> key_in('"order-17"') == key_in("order-17")
        True
    """
    quoted = _QUOTED.fullmatch(header)
    if quoted:
        key = re.sub(r"\\(.)", r"\1", quoted[1])
    elif _BARE.fullmatch(header):
        key = header
    else:
        raise BadRequest(
            f'{HEADER} must be printable ASCII, such as "order-17" in quotes or without; given: {header[:100]!r}'
        )
    if not 1 <= len(key) <= MAX_KEY_LENGTH:
        raise BadRequest(f"{HEADER} must have 1 to {MAX_KEY_LENGTH} characters; given: {len(key)}")
    return key


def one_key(header: str | None, field: str | None) -> str | None:
    """The key of a submission that may name it in the header, in the body, or in both.

    Raises:
        BadRequest: the header is malformed, or the two differ.
    """
    if header is None:
        return field
    key = key_in(header)
    if field is not None and field != key:
        raise BadRequest(
            f"{HEADER} and idempotency_key must be the same when both are given; "
            f"given: {key[:100]!r} and {field[:100]!r}"
        )
    return key
