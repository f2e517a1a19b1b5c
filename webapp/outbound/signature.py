"""Signatures of outgoing calls, after the Standard Webhooks specification."""

from __future__ import annotations

import hmac
import time
from base64 import b64decode, b64encode
from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum

from standardwebhooks import Webhook

#: How a secret is written, after the specification.
PREFIX = "whsec_"


class Purpose(StrEnum):
    """What is signed; each purpose has secrets of its own, so that what a submitter may have signed is never taken for the other."""

    CALLBACKS = "callbacks"
    HTTP_JOBS = "http jobs"


def secrets_of(secrets: Sequence[str], purpose: Purpose, guest: str | None) -> list[str]:
    """The secrets by which a tenant's calls are signed: those of the settings for the default one, and for each other its own.

    A tenant's own are made from those of the settings with HMAC-SHA256, as keys are derived from one (RFC 5869, its second step): so there is
    nothing to store, and who knows one of them knows no other.

    Args:
        secrets: of the purpose, `whsec_...`, the newest first.
        guest: the name of the tenant; None: the default one.

    Example:
        >>> given = ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]
        >>> secrets_of(given, Purpose.CALLBACKS, None) == given, secrets_of(given, Purpose.CALLBACKS, "acme")
        (True, ['whsec_ArvJV5logJ+H8Ccd1PpU8h32VmxWMDOFOkzPtEEUQnM='])
    """
    if guest is None:
        return list(secrets)
    said = f"djps {purpose} of the tenant {guest}\x01".encode()
    return [
        PREFIX + b64encode(hmac.digest(b64decode(one.removeprefix(PREFIX)), said, "sha256")).decode()
        for one in secrets
    ]


class Signer:
    """Signs bodies with every secret there is, so that a receiver may know the old one or the new one.

    Args:
        secrets: `whsec_...`, the newest first; none: nothing is signed.

    Example:
        >>> signer = Signer(["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"])
        >>> sorted(signer.headers("job-1", b"{}"))
        ['webhook-id', 'webhook-signature', 'webhook-timestamp']
    """

    def __init__(self, secrets: Sequence[str]) -> None:
        self._keys = [Webhook(secret) for secret in secrets]

    def headers(self, message_id: str, body: bytes) -> dict[str, str]:
        """The headers that name and sign a message.

        Args:
            message_id: the same at every try, so that a receiver can tell a repetition.
            body: UTF-8 text, exactly as it is sent.

        Raises:
            UnicodeDecodeError: the body is no UTF-8 text, and there is a secret to sign it with.
        """
        now = datetime.fromtimestamp(int(time.time()), UTC)
        headers = {"webhook-id": message_id, "webhook-timestamp": str(int(now.timestamp()))}
        if self._keys:
            text = body.decode()
            headers["webhook-signature"] = " ".join(key.sign(message_id, now, text) for key in self._keys)
        return headers
