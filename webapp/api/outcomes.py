"""Counts what became of submissions: created, replayed, or refused and why."""

from __future__ import annotations

import re
from collections.abc import Mapping

from flask import Flask, Response, g, request

from webapp.infra.telemetry import metrics

#: The views that take jobs in, and whether one request is one submission.
_SUBMITTING = {"jobs.submit": True, "batch.submit_many": False}
#: Why a submission is refused, where its error has no name of its own.
_REASONS = {
    400: "bad_request",
    401: "no_key",
    403: "forbidden",
    409: "key_race",
    413: "too_large",
    415: "not_json",
    422: "invalid",
    429: "rate_limit",
    500: "error",
    503: "database_away",
}


def init_app(app: Flask) -> None:
    """Counts every submission once it is answered."""
    app.after_request(_count)


def name_refusal(error: Exception) -> None:
    """Remembers why this request is refused: its error's class, `UnknownTask` as `unknown_task`."""
    g.refusal = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(error).__name__).lower()


def count_items(counts: Mapping[str, int], full: Mapping[str, int]) -> None:
    """Counts the answers to the items of a batch.

    Args:
        counts: by outcome.
        full: those of the invalid ones that were refused for a bound, by its code.
    """
    found = {
        ("created", ""): counts["created"],
        ("replayed", ""): counts["existing"],
        ("refused", "invalid"): counts["invalid"] - sum(full.values()),
    } | {("refused", code.replace("-", "_")): count for code, count in full.items()}
    for (outcome, reason), count in found.items():
        if count:
            metrics.submissions.labels(outcome, reason).inc(count)


def _count(response: Response) -> Response:
    single = _SUBMITTING.get(request.endpoint or "")
    if single is not None and response.status_code >= 400:  # noqa: PLR2004 - where HTTP's errors begin
        reason = g.pop("refusal", None) or _REASONS.get(response.status_code, metrics.OTHER)
        metrics.submissions.labels("refused", reason).inc()
    elif single:
        metrics.submissions.labels("created" if response.status_code == 201 else "replayed", "").inc()  # noqa: PLR2004
    return response
