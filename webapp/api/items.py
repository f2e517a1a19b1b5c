"""The jobs of a request that has many: each is read, judged and answered by itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from webapp.api import outcomes
from webapp.api.breaches import Breach, breaches_of
from webapp.api.errors import broken_option
from webapp.infra.jsontext import size_of
from webapp.jobs.errors import (
    JobError,
    KeyElsewhere,
    KeyTaken,
    OptionRefused,
    OutOfReach,
    PayloadRefused,
    SubmissionRefused,
)
from webapp.jobs.request import SubmitRequest
from webapp.jobs.submission import Placed, Submission

#: Broken rules of items that are named in one answer; beyond, the first of each item.
MOST_BREACHES = 1_000


class ReadItems:
    """Items that were read: those that could be are `submissions`, the others are answered already.

    Args:
        given: the items.
        largest: bytes of JSON that one may have.
    """

    def __init__(self, given: Sequence[Any], largest: int) -> None:
        self._answers: list[dict[str, Any]] = [{}] * len(given)
        self._valid: dict[int, Submission] = {}
        self._named = 0
        for number, item in enumerate(given):
            try:
                wanted = SubmitRequest.model_validate(item)
            except ValidationError as error:
                self._answers[number] = _invalid_by(breaches_of(error), self._named)
                self._named += len(self._answers[number]["errors"])
            else:
                if (size := size_of(item)) > largest:
                    self._answers[number] = _invalid([_too_large(size, largest)])
                    continue
                self._valid[number] = wanted.submission(wanted.idempotency_key)

    @property
    def submissions(self) -> list[Submission]:
        """Those that could be read, in their order."""
        return list(self._valid.values())

    def answers(self, placed: Sequence[Any]) -> list[dict[str, Any]]:
        """What each item is answered.

        Args:
            placed: what became of `submissions`.
        """
        answers, named = list(self._answers), self._named
        for number, one in zip(self._valid, placed, strict=True):
            answers[number] = _answer(one, named)
            named += len(answers[number].get("errors", ()))
        return answers


def summed(answers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The answer of a request with many items: how many came to what, and each."""
    counts = dict.fromkeys(("created", "existing", "invalid"), 0)
    for answer in answers:
        counts[answer["outcome"]] += 1
    return {**counts, "items": answers}


def count(answer: Mapping[str, Any]) -> None:
    """Counts what became of the items of a request."""
    counts = {name: answer[name] for name in ("created", "existing", "invalid")}
    outcomes.count_items(counts, Counter(item["reason"] for item in answer["items"] if "reason" in item))


def _answer(placed: Placed | JobError, named: int) -> dict[str, Any]:
    match placed:
        case Placed(id=job_id, created=created):
            answer = {"outcome": "created" if created else "existing", "id": str(job_id)}
            said = {"held": placed.held, "replaced": placed.replaced}
            return answer | {name: True for name, is_so in said.items() if is_so}
        case KeyTaken() | OutOfReach() | KeyElsewhere():
            return _invalid([{"field": placed.field, "rule": str(placed), "given": placed.given}])
        case SubmissionRefused():
            breach = {"field": "queue", "rule": str(placed), "given": placed.queue}
            return _invalid([breach]) | {"reason": placed.code, "retry_after": placed.retry_after}
        case PayloadRefused(error=error, secret=secret):
            return _invalid_by(breaches_of(error, "payload", secret=secret), named)
        case OptionRefused():
            return _invalid([broken_option(placed).model_dump()])
        case _:
            return _invalid([{"field": "body", "rule": str(placed), "given": "this item"}])


def _too_large(size: int, largest: int) -> dict[str, Any]:
    """An item of a batch may have the size of a body of its own."""
    return {"field": "body", "rule": f"must be at most {largest} bytes as JSON", "given": f"{size} bytes"}


def _invalid_by(breaches: list[Breach], named: int) -> dict[str, Any]:
    """An item that broke rules.

    Args:
        named: broken rules that this batch's answer names already.
    """
    told = breaches if named < MOST_BREACHES else breaches[:1]
    return _invalid([breach.model_dump() for breach in told])


def _invalid(errors: list[dict[str, Any]]) -> dict[str, Any]:
    return {"outcome": "invalid", "errors": errors}
