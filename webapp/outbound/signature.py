"""Signatures of outgoing calls, after the Standard Webhooks specification."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime

from standardwebhooks import Webhook


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
