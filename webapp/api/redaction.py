"""Answers without what jobs carry, for callers who may look at jobs and not into them (`jobs:content`).

What is left out is null, so that an answer keeps its form, and `redacted` says that there may be something.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from webapp.access.model import Scope
from webapp.api.callers import caller
from webapp.api.schemas import REDACTED

#: What of an answer is a job's content: payload and result, words of its handler, and URLs that may hold credentials.
CONTENT = frozenset(
    {
        *("payload", "payload_preview", "result", "last_error", "callback_url"),
        *("error_message", "traceback", "sample_message", "sample_traceback"),
    }
)
#: What stands in a sentence in the place of an error's words.
NOT_SHOWN = f"an error whose words need the scope {Scope.JOBS_CONTENT}"


def shown(answer: dict[str, Any]) -> dict[str, Any]:
    """An answer as the caller of this request may see it."""
    return answer if caller().sees_content else without_content(answer)


def all_shown(answers: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Answers as the caller of this request may see them."""
    return list(answers) if caller().sees_content else [without_content(answer) for answer in answers]


def without_content(answer: Mapping[str, Any]) -> dict[str, Any]:
    """An answer without what its job carries; one that has no field for it stays as it is. Pure.

    Example:
        >>> without_content({"id": 1, "payload": {"card": "4111"}, "progress": {"done": 2, "note": "Ann Lee"}})
        {'id': 1, 'payload': None, 'progress': {'done': 2, 'note': None}, 'redacted': True}
    """
    kept = {name: None if name in CONTENT else value for name, value in answer.items()}
    progress = kept.get("progress")
    if isinstance(progress, dict) and "note" in progress:
        kept["progress"] = progress | {"note": None}
    if CONTENT.isdisjoint(answer) and "progress" not in answer:
        return kept
    return kept | {REDACTED: True}


def explanation(answer: dict[str, Any]) -> dict[str, Any]:
    """An explanation as the caller of this request may see it: the error of a failed job stands in its sentence."""
    return answer if caller().sees_content else without_error(answer)


def without_error(answer: Mapping[str, Any]) -> dict[str, Any]:
    """An explanation without the words of its job's error. Pure.

    Example:
        >>> without_error({"state": "final", "sentence": "it failed: E: 4111; no", "facts": {"last_error": "E: 4111"}})["facts"]
        {'last_error': None}
    """
    error = answer["facts"].get("last_error")
    if not error:
        return dict(answer)
    sentence = answer["sentence"].replace(error, NOT_SHOWN)
    return {**answer, "sentence": sentence, "facts": answer["facts"] | {"last_error": None}}
