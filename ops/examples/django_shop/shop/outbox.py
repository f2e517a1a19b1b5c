"""Submits jobs that are sure to be submitted if, and only if, the transaction that asks for them commits."""

from __future__ import annotations

import json
import logging
from http.client import HTTPException
from typing import Any
from urllib.request import Request, urlopen

from django.conf import settings
from django.db import transaction

from shop.models import Submission

log = logging.getLogger(__name__)


def submit(payload: dict[str, Any], key: str) -> None:
    """Submits a job when the transaction that this is called in commits, and not if it does not.

    Args:
        key: the same for the same work, such as the order's number.
    """
    waiting = Submission.objects.create(key=key, payload=payload)
    # At once, so that the job need not wait for `send_submissions`, and after the commit, so that the worker finds the order.
    transaction.on_commit(lambda: send(waiting), robust=True)


def send(waiting: Submission) -> bool:
    """Sends one submission; True if DJPS has it.

    Sending twice is safe: it is one job for one key, for as long as a key lives (a day); after that the handler sees to it.
    """
    body = json.dumps({"payload": waiting.payload, "idempotency_key": waiting.key}).encode()
    request = Request(f"{settings.DJPS_URL}/jobs", body, {"Content-Type": "application/json"})  # noqa: S310
    try:
        with urlopen(request, timeout=settings.DJPS_TIMEOUT):  # noqa: S310
            waiting.delete()
    except (OSError, HTTPException) as error:
        # It stays in the outbox. A refusal (HTTPError, 4xx) will be one at every try: look at this line.
        log.warning("submission %s was not sent: %s", waiting.key, error)
        return False
    return True
